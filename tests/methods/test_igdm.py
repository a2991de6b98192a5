"""IGDM against float64 NumPy: a second term on logit differences that grows with the epochs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compressor.core.errors import UsageError
from compressor.methods.adaad import AdaAD
from compressor.methods.igdm import IGDM


@pytest.mark.parametrize(("reduction", "divisor"), [("batchmean", 1), ("batchmean/10", 10), ("mean", 3)])
@pytest.mark.parametrize("epoch", [0, 9])
def test_loss_and_gradient(worked, epoch: int, reduction: str, divisor: int) -> None:
    behind = 2 * worked.x - worked.x_adv
    target = worked.logits(worked.teacher, worked.x_adv)
    difference = target - worked.logits(worked.teacher, behind)

    def expected(weight) -> float:
        z, back = worked.pixels(worked.x_adv) @ weight.T, worked.pixels(behind) @ weight.T
        adversarial = worked.kl(worked.softmax(target), worked.softmax(z)).mean()
        gradient = worked.kl(worked.softmax(difference), worked.softmax(z - back)).mean()
        return (adversarial + 3 * (epoch + 1) / 10 * gradient) / divisor

    terms = worked.check(IGDM(alpha=3, reduction=reduction), expected, progress=worked.progress(epoch, 10))
    assert terms["gradient"].item() > 0


@pytest.mark.parametrize(("epoch", "weight"), [(0, 1 / 200), (99, 0.5), (199, 1.0)])
def test_the_weight_of_the_second_term_grows_to_alpha(worked, epoch: int, weight: float) -> None:
    progress = worked.progress(epoch, 200)
    terms = IGDM().outer(worked.student, worked.teacher, worked.batch, worked.x_adv, progress)
    expected = terms["adversarial"] + weight * terms["gradient"]
    assert terms["total"].item() == pytest.approx(expected.item(), rel=1e-12)


def test_forwards_are_ahead_then_behind_beyond_the_pixel_range_and_none_on_natural_images(worked) -> None:
    worked.x_adv = torch.zeros_like(worked.x)
    worked.x = torch.full_like(worked.x, 0.6)
    IGDM().outer(worked.student, worked.teacher, worked.batch, worked.x_adv, worked.progress())
    assert worked.saw() == ["adversarial", "other"]
    assert torch.equal(worked.student.seen[1], 2 * worked.x)
    assert worked.student.seen[1].max() > 1


def test_its_attack_is_that_of_adaad(worked) -> None:
    for mine, theirs in zip(worked.objective(IGDM()), worked.objective(AdaAD()), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert IGDM().labels_in == "nothing"


def test_bad_settings_and_no_teacher(worked) -> None:
    for settings in ({"alpha": -1.0}, {"reduction": "sum"}):
        with pytest.raises(UsageError, match=next(iter(settings))):
            IGDM(**settings)
    with pytest.raises(UsageError, match="igdm needs a teacher"):
        IGDM().inner(worked.student, None, worked.batch)
