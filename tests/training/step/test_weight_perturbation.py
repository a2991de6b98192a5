"""AWP against a model worked by hand: where the weights go, what the gradient is there, and that all else stays."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.training.step.weight_perturbation import perturbed_tensors, perturbed_weights

X = torch.tensor([[0.2, 0.7], [0.9, 0.1]], dtype=torch.float64)


class Quadratic(nn.Module):
    """``f(x) = x W^T + b``; the loss is the mean of its squares, whose gradient is ``2 f^T x / n``."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 0.25], [-1.0, 3.0]], dtype=torch.float64))
        self.bias = nn.Parameter(torch.tensor([0.1, -0.3, 0.2], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + self.bias


def loss_of(model: nn.Module) -> Tensor:
    return model(X).square().mean()


def test_weights_move_by_gamma_of_their_norm_along_the_gradient_and_come_back_to_the_bit() -> None:
    model = Quadratic()
    weight, bias = model.weight.detach().numpy().copy(), model.bias.detach().numpy().copy()
    x = X.numpy()
    gradient = 2 * (x @ weight.T + bias).T @ x / 6
    expected = weight + 0.01 * np.linalg.norm(weight) * gradient / np.linalg.norm(gradient)
    with perturbed_weights(model, loss_of, 0.01):
        np.testing.assert_allclose(model.weight.detach().numpy(), expected, rtol=1e-12)
        np.testing.assert_array_equal(model.bias.detach().numpy(), bias)
        before = loss_of(model).item()
        loss_of(model).backward()
    np.testing.assert_array_equal(model.weight.detach().numpy(), weight)
    assert before > loss_of(model).item(), "against the loss"
    there = 2 * (x @ expected.T + bias).T @ x / 6
    np.testing.assert_allclose(model.weight.grad.numpy(), there, rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 65536.0])
def test_the_losss_scale_does_not_matter(scale: float) -> None:
    model = Quadratic()
    with perturbed_weights(model, loss_of, 0.01):
        expected = model.weight.detach().clone()
    with perturbed_weights(model, lambda m: scale * loss_of(m), 0.01):
        torch.testing.assert_close(model.weight.detach(), expected)


def test_no_gradient_no_move() -> None:
    model = Quadratic()
    for bad in (lambda m: 0 * loss_of(m), lambda m: float("nan") * loss_of(m), lambda m: model.bias.sum()):
        with perturbed_weights(model, bad, 0.01):
            assert torch.equal(model.weight, Quadratic().weight)


def test_weights_come_back_when_the_step_fails() -> None:
    model = Quadratic()
    with pytest.raises(RuntimeError, match="in the step"), perturbed_weights(model, loss_of, 0.5):
        raise RuntimeError("in the step")
    assert torch.equal(model.weight, Quadratic().weight)


def test_finding_the_direction_moves_no_statistics_and_leaves_no_gradient() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 3)).train()
    twin = copy.deepcopy(model)
    x = torch.rand(5, 3, 8, 8)
    with perturbed_weights(model, lambda m: m(x).square().mean(), 0.1):
        assert all(torch.equal(a, b) for a, b in zip(model.buffers(), twin.buffers(), strict=True))
        assert all(parameter.grad is None for parameter in model.parameters())
        moved = [not torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True)]
        assert moved == [p.ndim > 1 for p in model.parameters()], "convolution and head, not biases or BatchNorm"
        model(x)
    assert int(model[1].num_batches_tracked) == 1
    assert perturbed_tensors(model) == [model[0].weight, model[3].weight]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
