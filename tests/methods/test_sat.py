"""SAT trains and attacks with the same loss: the labels' cross-entropy on the adversarial images."""

from __future__ import annotations

import numpy as np
import pytest

from compressor.methods.sat import SAT


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_cross_entropy_on_the_adversarial_images_alone(worked, smoothing: float) -> None:
    worked.check(
        SAT(),
        lambda weight: worked.ce(worked.pixels(worked.x_adv) @ weight.T, smoothing).mean(),
        label_smoothing=smoothing,
    )
    assert worked.saw() == ["adversarial"]


def test_the_attack_goes_by_the_label_as_it_is(worked) -> None:
    values, gradient = worked.objective(SAT())
    z = worked.logits(worked.student, worked.x_adv)
    np.testing.assert_allclose(values, worked.ce(z), rtol=1e-12)
    np.testing.assert_allclose(gradient, (worked.softmax(z) - np.eye(3)[worked.y]) @ worked.weight, rtol=1e-12)
