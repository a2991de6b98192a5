"""TRADES against float64 NumPy: both arguments of its KL learn, and it makes three forwards."""

from __future__ import annotations

import pytest

from compressor.core.errors import UsageError
from compressor.methods.trades import TRADES


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_gradient_with_nothing_detached(worked, smoothing: float) -> None:
    def expected(weight) -> float:
        natural, adversarial = worked.pixels(worked.x) @ weight.T, worked.pixels(worked.x_adv) @ weight.T
        robust = worked.kl(worked.softmax(natural), worked.softmax(adversarial)).mean()
        return worked.ce(natural, smoothing).mean() + 6 * robust

    worked.check(TRADES(), expected, label_smoothing=smoothing)


def test_forwards_are_natural_adversarial_natural(worked) -> None:
    TRADES().outer(worked.student, None, worked.batch, worked.x_adv, worked.progress())
    assert worked.saw() == ["natural", "adversarial", "natural"]


def test_objective_starts_from_the_natural_answer_which_is_asked_once(worked) -> None:
    p, q = (worked.softmax(worked.logits(worked.student, x)) for x in (worked.x, worked.x_adv))
    worked.check_objective(TRADES(), p, q)
    assert worked.saw().count("natural") == 1


def test_the_natural_answer_takes_no_gradient_in_the_attack(worked) -> None:
    objective = TRADES().inner(worked.student, None, worked.batch)
    x = worked.x.clone().requires_grad_()
    assert objective(x, worked.y * 0).requires_grad
    assert not worked.student.seen[0].requires_grad


def test_bad_settings() -> None:
    with pytest.raises(UsageError, match="beta"):
        TRADES(beta=-1)
