"""IAD against float64 NumPy: when its second term starts, what weighs it, and how often it runs each image."""

from __future__ import annotations

import numpy as np
import pytest

from compressor.core.errors import UsageError
from compressor.methods.iad import IAD


def guided(worked, weight, temperature: float = 1.0) -> float:
    target = worked.softmax(worked.logits(worked.teacher, worked.x) / temperature)
    z = worked.pixels(worked.x_adv) @ weight.T
    return float(temperature**2 * worked.kl(target, worked.softmax(z / temperature)).mean())


@pytest.mark.parametrize("temperature", [1.0, 5.0])
def test_before_it_begins_the_teacher_alone_counts(worked, temperature: float) -> None:
    method = IAD(temperature=temperature)
    worked.check(method, lambda weight: guided(worked, weight, temperature), progress=worked.progress(2, 10))
    assert worked.saw() == ["adversarial", "adversarial", "natural"]
    assert worked.teacher.seen == []


@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_from_then_on_the_student_trusts_itself_where_the_teacher_falls(worked, beta: float) -> None:
    probability = worked.softmax(worked.logits(worked.teacher, worked.x_adv))[np.arange(2), worked.y.numpy()]

    def expected(weight) -> float:
        # The natural answer learns as well: it is not detached. The teacher's probability is a number.
        p = worked.softmax(worked.pixels(worked.x) @ weight.T)
        q = worked.softmax(worked.pixels(worked.x_adv) @ weight.T)
        return guided(worked, weight) + float((worked.kl(p, q) * (1 - probability**beta)).mean())

    worked.check(IAD(beta=beta), expected, progress=worked.progress(3, 10))
    assert worked.saw() == ["adversarial", "adversarial", "natural", "natural"]


@pytest.mark.parametrize(("epoch", "started"), [(59, False), (60, True)])
def test_it_begins_with_epoch_60_of_200(worked, epoch: int, started: bool) -> None:
    progress = worked.progress(epoch, 200)
    terms = IAD().outer(worked.student, worked.teacher, worked.batch, worked.x_adv, progress)
    assert ("self" in terms) is started


def test_the_released_modes(worked) -> None:
    assert IAD.attack_mode == "train"
    assert IAD.recipe_defaults["attack_start"] == "uniform"
    values, _ = worked.objective(IAD())
    np.testing.assert_allclose(values, worked.ce(worked.logits(worked.student, worked.x_adv)), rtol=1e-12)
    assert IAD().labels_in == "attack"


def test_bad_settings_and_no_teacher(worked) -> None:
    for settings in ({"beta": -1.0}, {"begin": 1.5}, {"temperature": 0.0}):
        with pytest.raises(UsageError, match=next(iter(settings))):
            IAD(**settings)
    with pytest.raises(UsageError, match="iad needs a teacher"):
        IAD().outer(worked.student, None, worked.batch, worked.x_adv, worked.progress(9))
