"""Oracle: the formulas in float64 NumPy and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compressor.losses import cross_entropy, cw_margin, is_wrong, kl_divergence

LOGITS = hnp.arrays(np.float64, (5, 4), elements=st.floats(-50, 50))
LABELS = torch.tensor([0, 1, 2, 3, 0])


@settings(max_examples=50, deadline=None)
@given(LOGITS)
def test_cross_entropy_is_minus_the_log_probability_of_the_label(logits: np.ndarray) -> None:
    expected = -scipy.special.log_softmax(logits, axis=1)[np.arange(5), LABELS.numpy()]
    torch.testing.assert_close(cross_entropy(torch.tensor(logits), LABELS), torch.tensor(expected))


@settings(max_examples=50, deadline=None)
@given(LOGITS)
def test_cw_margin_is_positive_where_the_model_errs_and_negative_where_it_does_not(logits: np.ndarray) -> None:
    margin = cw_margin(torch.tensor(logits), LABELS).numpy()
    for row, label, value in zip(logits, LABELS.tolist(), margin, strict=True):
        assert value == np.delete(row, label).max() - row[label]
    wrong = is_wrong(torch.tensor(logits), LABELS).numpy()
    assert wrong[margin > 0].all()
    assert not wrong[margin < 0].any()


@settings(max_examples=50, deadline=None)
@given(LOGITS, LOGITS)
def test_kl_divergence_sums_over_classes_and_puts_the_target_first(target: np.ndarray, logits: np.ndarray) -> None:
    p, q = scipy.special.softmax(target, axis=1), scipy.special.softmax(logits, axis=1)
    expected = scipy.special.rel_entr(p, q).sum(axis=1)
    actual = kl_divergence(torch.tensor(target), torch.tensor(logits)).numpy()
    np.testing.assert_allclose(actual, expected, rtol=1e-7, atol=1e-9)


def test_kl_divergence_is_zero_at_equality_and_not_symmetric() -> None:
    a, b = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([[0.0, 1.0, 0.5]])
    assert kl_divergence(a, a).item() == 0
    assert abs(kl_divergence(a, b).item() - kl_divergence(b, a).item()) > 0.01


def test_kl_divergence_by_hand() -> None:
    # p = (3/4, 1/4), q = (1/2, 1/2): 3/4 log(3/2) + 1/4 log(1/2)
    target, logits = torch.tensor([[np.log(3.0), 0.0]]), torch.tensor([[0.0, 0.0]])
    expected = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    assert kl_divergence(target.double(), logits.double()).item() == pytest.approx(expected, rel=1e-12)


def test_a_probability_that_underflows_adds_nothing() -> None:
    value = kl_divergence(torch.tensor([[0.0, -1e4]]), torch.tensor([[0.0, 0.0]]))
    assert value.item() == pytest.approx(np.log(2), rel=1e-6)


@pytest.mark.parametrize("loss", [cross_entropy, cw_margin])
def test_the_gradient_is_that_of_finite_differences(loss) -> None:
    logits = torch.tensor([[1.0, 0.2, -0.5, 2.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: loss(z, torch.tensor([1])), (logits,))


def test_the_student_gets_the_gradient_q_minus_p() -> None:
    target, logits = torch.tensor([[1.0, 0.0, -2.0]]), torch.tensor([[0.3, 0.1, 0.2]], requires_grad=True)
    kl_divergence(target, logits).sum().backward()
    torch.testing.assert_close(logits.grad, (logits.softmax(1) - target.softmax(1)).detach())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_not_finite_are_an_error_even_at_the_right_label(value: float) -> None:
    assert is_wrong(torch.tensor([[value, 0.0], [1.0, 0.0]]), torch.tensor([0, 0])).tolist() == [True, False]
