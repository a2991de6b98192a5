"""Oracle: the formulas in float64 NumPy and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compressor.numerics.losses import cross_entropy, cw_margin, dlr, is_wrong, kl_divergence, targeted_dlr

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


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.float64, (5, 6), elements=st.floats(-50, 50), unique=True))
def test_dlr_is_the_margin_over_the_gap_to_the_third(logits: np.ndarray) -> None:
    found = dlr(torch.tensor(logits), LABELS).numpy()
    for row, label, value in zip(logits, LABELS.tolist(), found, strict=True):
        largest = np.sort(row)[::-1]
        expected = (np.delete(row, label).max() - row[label]) / (largest[0] - largest[2] + 1e-12)
        assert value == pytest.approx(expected, rel=1e-9)


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.float64, (5, 6), elements=st.floats(-50, 50), unique=True))
def test_targeted_dlr_is_the_targeted_margin_over_the_gap_to_the_third_and_fourth(logits: np.ndarray) -> None:
    targets = (LABELS + 2) % 6
    found = targeted_dlr(torch.tensor(logits), LABELS, targets).numpy()
    for row, label, target, value in zip(logits, LABELS.tolist(), targets.tolist(), found, strict=True):
        largest = np.sort(row)[::-1]
        expected = (row[target] - row[label]) / (largest[0] - (largest[2] + largest[3]) / 2 + 1e-12)
        assert value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("loss", "classes"), [("dlr", 2), ("targeted_dlr", 2), ("targeted_dlr", 3)])
def test_with_too_few_classes_the_plain_margin_stands_in(loss: str, classes: int) -> None:
    logits = torch.randn(6, classes, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(6) % classes
    targets = (labels + 1) % classes
    rows = torch.arange(6)
    if loss == "dlr":
        torch.testing.assert_close(dlr(logits, labels), cw_margin(logits, labels))
    else:
        expected = logits[rows, targets] - logits[rows, labels]
        torch.testing.assert_close(targeted_dlr(logits, labels, targets), expected)


@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_neither_scaling_nor_shifting_changes_the_ratios(scale: float) -> None:
    logits = torch.randn(5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = (LABELS + 1) % 6
    torch.testing.assert_close(dlr(scale * logits + 7, LABELS), dlr(logits, LABELS))
    torch.testing.assert_close(targeted_dlr(scale * logits + 7, LABELS, targets), targeted_dlr(logits, LABELS, targets))
