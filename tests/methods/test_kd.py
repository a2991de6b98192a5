"""KD against float64 NumPy: natural images alone, soft labels at a temperature beside the labels."""

from __future__ import annotations

import pytest

from compressor.core.contracts import Batch
from compressor.core.errors import UsageError
from compressor.methods.kd import KD


@pytest.mark.parametrize(("alpha", "temperature"), [(0.9, 4.0), (0.5, 1.0), (1.0, 20.0)])
def test_loss_and_gradient(worked, alpha: float, temperature: float) -> None:
    target = worked.softmax(worked.logits(worked.teacher, worked.x) / temperature)

    def expected(weight) -> float:
        z = worked.pixels(worked.x) @ weight.T
        soft = temperature**2 * worked.kl(target, worked.softmax(z / temperature)).mean()
        return (1 - alpha) * worked.ce(z).mean() + alpha * soft

    worked.check(KD(alpha=alpha, temperature=temperature), expected)


def test_smoothing_reaches_the_label_term(worked) -> None:
    target = worked.softmax(worked.logits(worked.teacher, worked.x) / 4)

    def expected(weight) -> float:
        z = worked.pixels(worked.x) @ weight.T
        return 0.1 * worked.ce(z, 0.2).mean() + 0.9 * 16 * worked.kl(target, worked.softmax(z / 4)).mean()

    worked.check(KD(), expected, label_smoothing=0.2)


def test_one_forward_no_attack(worked) -> None:
    assert KD().inner(worked.student, None, worked.batch) is None
    KD().outer(worked.student, None, worked.batch, worked.x_adv, worked.progress())
    assert worked.saw() == ["natural"]


def test_labels_enter_while_they_have_a_weight() -> None:
    assert KD().labels_in == "loss"
    assert KD(alpha=1).labels_in == "nothing"


def test_bad_settings_and_no_teacher(worked) -> None:
    with pytest.raises(UsageError, match="alpha"):
        KD(alpha=1.2)
    with pytest.raises(UsageError, match="temperature"):
        KD(temperature=0)
    with pytest.raises(UsageError, match="kd needs a teacher"):
        KD().outer(worked.student, None, Batch(worked.x, worked.y), worked.x, worked.progress())
