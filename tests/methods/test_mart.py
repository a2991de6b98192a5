"""MART against float64 NumPy: the weight of its KL learns too, and its margin is guarded as released."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from compressor.core.errors import UsageError
from compressor.methods.mart import MART


@pytest.mark.parametrize("beta", [5.0, 0.0])
def test_loss_and_gradient_with_nothing_detached(worked, beta: float) -> None:
    rows, y = np.arange(2), worked.y.numpy()

    def expected(weight) -> float:
        natural, z = worked.pixels(worked.x) @ weight.T, worked.pixels(worked.x_adv) @ weight.T
        p, q = worked.softmax(natural), worked.softmax(z)
        wrong = q.copy()
        wrong[rows, y] = 0
        boosted = worked.ce(z) - np.log(1.0001 - wrong.max(1))
        return (boosted + beta * worked.kl(p, q) * (1 - p[rows, y])).mean()

    worked.check(MART(beta=beta), expected)


def test_forwards_are_natural_then_adversarial(worked) -> None:
    MART().outer(worked.student, None, worked.batch, worked.x_adv, worked.progress())
    assert worked.saw() == ["natural", "adversarial"]


def test_an_image_that_is_surely_wrong_costs_no_more_than_the_guard_allows(worked) -> None:
    with torch.no_grad():
        worked.student.weight.mul_(1e6)
    logits = worked.logits(worked.student, worked.x_adv)
    terms = MART(beta=0).outer(worked.student, None, worked.batch, worked.x_adv, worked.progress())
    cross_entropy = (logits.max(1) - logits[np.arange(2), worked.y.numpy()]).mean()
    assert terms["boosted"].item() - cross_entropy == pytest.approx(-math.log(1e-4), abs=1e-6)


def test_objective_is_cross_entropy(worked) -> None:
    values, gradient = worked.objective(MART())
    z = worked.logits(worked.student, worked.x_adv)
    np.testing.assert_allclose(values, worked.ce(z), rtol=1e-12)
    np.testing.assert_allclose(gradient, (worked.softmax(z) - np.eye(3)[worked.y]) @ worked.weight, rtol=1e-12)


def test_published_rate_and_decay_are_its_own() -> None:
    assert MART.recipe_defaults["learning_rate"] == 0.01
    assert MART.recipe_defaults["weight_decay"] == 3.5e-3


def test_bad_settings() -> None:
    with pytest.raises(UsageError, match="beta"):
        MART(beta=math.nan)
