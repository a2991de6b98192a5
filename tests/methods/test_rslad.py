"""RSLAD against float64 NumPy, and the quirks that make it RSLAD: one target for every term, and no label anywhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from compressor.core.contracts import Batch
from compressor.core.errors import UsageError
from compressor.core.types import Threat
from compressor.methods.rslad import RSLAD
from compressor.numerics.ascent import ascend


@pytest.mark.parametrize(("reduction", "divisor"), [("batchmean", 1), ("mean", 3), ("batchmean/10", 10)])
@pytest.mark.parametrize("alpha", [5 / 6, 0.25])
def test_loss_and_gradient(worked, alpha: float, reduction: str, divisor: int) -> None:
    target = worked.softmax(worked.logits(worked.teacher, worked.x))

    def expected(weight) -> float:
        adversarial = worked.kl(target, worked.softmax(worked.pixels(worked.x_adv) @ weight.T)).mean()
        natural = worked.kl(target, worked.softmax(worked.pixels(worked.x) @ weight.T)).mean()
        return (alpha * adversarial + (1 - alpha) * natural) / divisor

    worked.check(RSLAD(alpha=alpha, reduction=reduction), expected)


def test_the_released_weights() -> None:
    assert RSLAD() == RSLAD(alpha=5 / 6, reduction="batchmean/10")


def test_objective_is_the_kl_of_each_image_and_its_gradient_the_closed_form(worked) -> None:
    target = worked.softmax(worked.logits(worked.teacher, worked.x))
    worked.check_objective(RSLAD(), target, worked.softmax(worked.logits(worked.student, worked.x_adv)))


def test_one_inner_step_is_the_hand_computed_signed_step(worked) -> None:
    x_adv = ascend(
        RSLAD().inner(worked.student, None, worked.batch), worked.x, Threat("Linf", "0.1"),
        torch.Generator().manual_seed(0), steps=1, step_size=0.05, start="none",
    )  # fmt: skip
    target = worked.softmax(worked.logits(worked.teacher, worked.x))
    gradient = (worked.softmax(worked.logits(worked.student, worked.x)) - target) @ worked.weight
    expected = np.clip(worked.pixels(worked.x) + 0.05 * np.sign(gradient), 0, 1)
    np.testing.assert_allclose(worked.pixels(x_adv), expected, rtol=1e-12)


def test_labels_change_nothing(worked) -> None:
    grads = []
    for labels in (torch.tensor([0, 2]), torch.tensor([1, 0])):
        worked.student.zero_grad()
        batch = Batch(worked.x, labels, worked.batch.teacher_logits)
        RSLAD().outer(worked.student, None, batch, worked.x_adv, worked.progress())["total"].backward()
        grads.append(worked.student.weight.grad.clone())
    assert torch.equal(*grads)
    assert RSLAD().labels_in == "nothing"


def test_two_forwards_adversarial_first(worked) -> None:
    RSLAD().outer(worked.student, None, worked.batch, worked.x_adv, worked.progress())
    assert worked.saw() == ["adversarial", "natural"]


def test_settings_out_of_range_are_refused(worked) -> None:
    for bad in (-0.1, 1.1, math.nan):
        with pytest.raises(UsageError, match="alpha"):
            RSLAD(alpha=bad)
    with pytest.raises(UsageError, match="reduction"):
        RSLAD(reduction="sum")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="rslad needs a teacher"):
        RSLAD().inner(worked.student, None, Batch(worked.x, worked.y))
