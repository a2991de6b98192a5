"""RSLAD against a case worked in float64 NumPy, and the quirks that make it RSLAD."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.ascent import ascend
from compressor.contracts import Batch, Progress
from compressor.errors import UsageError
from compressor.methods.rslad import RSLAD
from compressor.types import Threat

PROGRESS = Progress(epoch=0, epochs=1, step=0, steps=1)


class Affine(nn.Module):
    """Two pixels to three logits, small enough to work by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 0.25], [-1.0, 3.0]], dtype=torch.float64))
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return x.flatten(1) @ self.weight.T


def images(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).view(len(rows), 1, 1, 2)


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return (p * (np.log(p) - np.log(q))).sum(1)


X, X_ADV = images([0.2, 0.7], [0.9, 0.1]), images([0.3, 0.6], [0.8, 0.2])
TEACHER = torch.tensor([[2.0, 0.0, -1.0], [0.1, 0.2, 0.3]], dtype=torch.float64)
BATCH = Batch(X, torch.tensor([0, 2]), TEACHER)


@pytest.mark.parametrize(("reduction", "divisor"), [("batchmean", 1), ("mean", 3), ("batchmean/10", 10)])
def test_outer_loss_equals_the_formula_in_numpy(reduction: str, divisor: int) -> None:
    student = Affine()
    terms = RSLAD(reduction=reduction).outer(student, None, BATCH, X_ADV, PROGRESS)

    weight, target = student.weight.detach().numpy(), softmax(TEACHER.numpy())
    adversarial = kl(target, softmax(X_ADV.flatten(1).numpy() @ weight.T)).mean() / divisor
    natural = kl(target, softmax(X.flatten(1).numpy() @ weight.T)).mean() / divisor
    assert terms["adversarial"].item() == pytest.approx(adversarial, rel=1e-12)
    assert terms["natural"].item() == pytest.approx(natural, rel=1e-12)
    assert terms["total"].item() == pytest.approx(5 / 6 * adversarial + 1 / 6 * natural, rel=1e-12)


def test_outer_gradient_equals_the_closed_form() -> None:
    student = Affine()
    RSLAD(reduction="batchmean").outer(student, None, BATCH, X_ADV, PROGRESS)["total"].backward()

    # d KL(p || softmax(Wx)) / dW = (softmax(Wx) - p) x^T
    weight, target = student.weight.detach().numpy(), softmax(TEACHER.numpy())
    expected = np.zeros((3, 2))
    for x, share in ((X_ADV, 5 / 6), (X, 1 / 6)):
        pixels = x.flatten(1).numpy()
        expected += share * (softmax(pixels @ weight.T) - target).T @ pixels / len(pixels)
    assert student.weight.grad is not None
    np.testing.assert_allclose(student.weight.grad.numpy(), expected, rtol=1e-12)


def test_inner_objective_is_the_kl_of_each_image_and_its_gradient_the_closed_form() -> None:
    student = Affine()
    objective = RSLAD().inner(student, None, BATCH)
    index = torch.tensor([1])
    x_adv = X_ADV[index].clone().requires_grad_()
    values = objective(x_adv, index)
    (gradient,) = torch.autograd.grad(values.sum(), x_adv)

    weight, target = student.weight.detach().numpy(), softmax(TEACHER.numpy())[1:]
    student_probabilities = softmax(x_adv.detach().flatten(1).numpy() @ weight.T)
    assert values.item() == pytest.approx(kl(target, student_probabilities).item(), rel=1e-12)
    np.testing.assert_allclose(gradient.flatten(1).numpy(), (student_probabilities - target) @ weight, rtol=1e-12)


def test_one_inner_step_is_the_hand_computed_signed_step() -> None:
    student, threat = Affine(), Threat("Linf", "0.1")
    x_adv = ascend(
        RSLAD().inner(student, None, BATCH), X, threat, torch.Generator().manual_seed(0),
        steps=1, step_size=0.05, start="none",
    )  # fmt: skip
    weight, target = student.weight.detach().numpy(), softmax(TEACHER.numpy())
    gradient = (softmax(X.flatten(1).numpy() @ weight.T) - target) @ weight
    expected = np.clip(X.flatten(1).numpy() + 0.05 * np.sign(gradient), 0, 1)
    np.testing.assert_allclose(x_adv.flatten(1).numpy(), expected, rtol=1e-12)


def test_labels_change_nothing() -> None:
    student = Affine()
    grads = []
    for labels in (torch.tensor([0, 2]), torch.tensor([1, 0])):
        student.zero_grad()
        batch = Batch(X, labels, TEACHER)
        RSLAD().outer(student, None, batch, X_ADV, PROGRESS)["total"].backward()
        assert student.weight.grad is not None
        grads.append(student.weight.grad.clone())
    assert torch.equal(*grads)


def test_two_forwards_adversarial_first() -> None:
    student = Affine()
    RSLAD().outer(student, None, BATCH, X_ADV, PROGRESS)
    assert [torch.equal(seen, expected) for seen, expected in zip(student.seen, (X_ADV, X), strict=True)] == [
        True,
        True,
    ]


def test_settings_out_of_range_are_refused() -> None:
    for bad in (-0.1, 1.1, math.nan):
        with pytest.raises(UsageError, match="alpha"):
            RSLAD(alpha=bad)
    with pytest.raises(UsageError, match="reduction"):
        RSLAD(reduction="sum")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="needs a teacher"):
        RSLAD().inner(Affine(), None, Batch(X, torch.tensor([0, 1])))
