"""ARD against float64 NumPy: temperature 30, a mean over classes too, and a student attacked in train mode."""

from __future__ import annotations

import numpy as np
import pytest

from compressor.core.contracts import Batch
from compressor.core.errors import UsageError
from compressor.methods.ard import ARD


@pytest.mark.parametrize(("reduction", "divisor"), [("mean", 3), ("batchmean", 1), ("batchmean/10", 10)])
@pytest.mark.parametrize("alpha", [1.0, 0.7])
def test_loss_and_gradient(worked, alpha: float, reduction: str, divisor: int) -> None:
    target = worked.softmax(worked.logits(worked.teacher, worked.x) / 30)

    def expected(weight) -> float:
        natural, z = worked.pixels(worked.x) @ weight.T, worked.pixels(worked.x_adv) @ weight.T
        soft = 900 * worked.kl(target, worked.softmax(z / 30)).mean() / divisor
        return alpha * soft + (1 - alpha) * worked.ce(natural, 0.1).mean()

    worked.check(ARD(alpha=alpha, reduction=reduction), expected, label_smoothing=0.1)


@pytest.mark.parametrize("alpha", [1.0, 0.7])
def test_forwards_are_adversarial_then_natural_whatever_the_weight(worked, alpha: float) -> None:
    ARD(alpha=alpha).outer(worked.student, None, worked.batch, worked.x_adv, worked.progress())
    assert worked.saw() == ["adversarial", "natural"]


def test_the_released_defaults() -> None:
    assert ARD() == ARD(alpha=1.0, temperature=30.0, reduction="mean")
    assert ARD.attack_mode == "train"
    assert ARD.recipe_defaults["attack_start"] == "uniform"


def test_the_labels_steer_the_attack(worked) -> None:
    values, gradient = worked.objective(ARD())
    z = worked.logits(worked.student, worked.x_adv)
    np.testing.assert_allclose(values, worked.ce(z), rtol=1e-12)
    np.testing.assert_allclose(gradient, (worked.softmax(z) - np.eye(3)[worked.y]) @ worked.weight, rtol=1e-12)
    assert ARD().labels_in == "attack"
    assert ARD(alpha=0.5).labels_in == "loss"


def test_bad_settings_and_no_teacher(worked) -> None:
    for settings in ({"alpha": -0.1}, {"temperature": 0.0}, {"reduction": "sum"}):
        with pytest.raises(UsageError, match=next(iter(settings))):
            ARD(**settings)
    with pytest.raises(UsageError, match="ard needs a teacher"):
        ARD().outer(worked.student, None, Batch(worked.x, worked.y), worked.x_adv, worked.progress())
