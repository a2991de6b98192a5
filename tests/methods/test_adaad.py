"""AdaAD against float64 NumPy: the teacher answers at x', is differentiated in the attack, and never in the loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compressor.core.errors import UsageError
from compressor.methods.adaad import AdaAD


@pytest.mark.parametrize(("reduction", "divisor"), [("batchmean/10", 10), ("batchmean", 1), ("mean", 3)])
@pytest.mark.parametrize("alpha", [1.0, 0.6])
def test_loss_and_gradient(worked, alpha: float, reduction: str, divisor: int) -> None:
    target = worked.softmax(worked.logits(worked.teacher, worked.x_adv))
    natural_target = worked.softmax(worked.logits(worked.teacher, worked.x))

    def expected(weight) -> float:
        natural, z = worked.pixels(worked.x) @ weight.T, worked.pixels(worked.x_adv) @ weight.T
        adversarial = worked.kl(target, worked.softmax(z)).mean() / divisor
        return alpha * adversarial + (1 - alpha) * worked.kl(natural_target, worked.softmax(natural)).mean() / divisor

    worked.check(AdaAD(alpha=alpha, reduction=reduction), expected)


@pytest.mark.parametrize("alpha", [1.0, 0.6])
def test_forwards_are_natural_then_adversarial_whatever_the_weight(worked, alpha: float) -> None:
    AdaAD(alpha=alpha).outer(worked.student, worked.teacher, worked.batch, worked.x_adv, worked.progress())
    assert worked.saw() == ["natural", "adversarial"]


def test_the_attack_goes_through_both_networks(worked) -> None:
    values, gradient = worked.objective(AdaAD())
    p = worked.softmax(worked.logits(worked.teacher, worked.x_adv))
    q = worked.softmax(worked.logits(worked.student, worked.x_adv))
    np.testing.assert_allclose(values, worked.kl(p, q), rtol=1e-12)
    # d KL(p || q) / dx = (q - p) W_S + p (log p - log q - KL) W_T, both softmaxes moving.
    through_teacher = p * (np.log(p) - np.log(q) - values[:, None])
    teacher = worked.teacher.weight.detach().numpy()
    np.testing.assert_allclose(gradient, (q - p) @ worked.weight + through_teacher @ teacher, rtol=1e-10)


def test_the_attack_changes_with_what_the_teacher_says_at_the_adversarial_image(worked) -> None:
    _, before = worked.objective(AdaAD())
    with torch.no_grad():
        worked.teacher.weight.mul_(-1)
    _, after = worked.objective(AdaAD())
    assert not np.allclose(before, after)


def test_labels_are_not_looked_at(worked) -> None:
    assert AdaAD().labels_in == "nothing"
    no_labels = torch.full_like(worked.y, -1)
    assert worked.batch.y.tolist() != no_labels.tolist()
    worked.y = no_labels
    worked.objective(AdaAD())
    AdaAD(alpha=0.5).outer(worked.student, worked.teacher, worked.batch, worked.x_adv, worked.progress())


def test_bad_settings_and_no_teacher(worked) -> None:
    for settings in ({"alpha": 2.0}, {"reduction": "sum"}):
        with pytest.raises(UsageError, match=next(iter(settings))):
            AdaAD(**settings)
    with pytest.raises(UsageError, match="adaad needs a teacher"):
        AdaAD().inner(worked.student, None, worked.batch)
