"""The statistics against SciPy, and against the numbers that the protocol prints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from compressor.numerics.statistics import (
    TInterval,
    binomial_tail,
    clopper_pearson,
    fisher_one_sided,
    holm,
    mcnemar,
    mean_and_deviation,
    paired_t_interval,
    student_p_value,
    student_quantile,
    welch_t_interval,
    wilson_interval,
)

COUNTS = st.integers(0, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
CONFIDENCES = st.sampled_from([0.5, 0.9, 0.95, 0.99, 0.999])


@pytest.mark.parametrize(("m", "b"), [(128, 5), (256, 8), (512, 12)])
def test_protocol_thresholds(m: int, b: int) -> None:
    assert binomial_tail(b, m, 0.01) < 0.01 <= binomial_tail(b - 1, m, 0.01)


@settings(max_examples=100, deadline=None)
@given(st.integers(-1, 3001), st.integers(0, 3000), st.sampled_from([0.0, 1e-6, 0.01, 0.3, 0.5, 0.99, 1.0]))
def test_binomial_tail_equals_scipy(b: int, n: int, p: float) -> None:
    assert binomial_tail(b, n, p) == pytest.approx(stats.binom.sf(b - 1, n, p), rel=1e-8, abs=1e-280)


@settings(max_examples=60, deadline=None)
@given(COUNTS, CONFIDENCES)
def test_wilson_equals_scipy(counts: tuple[int, int], confidence: float) -> None:
    successes, n = counts
    if n == 0:
        assert wilson_interval(0, 0) == (0.0, 1.0)
        return
    expected = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert wilson_interval(successes, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(COUNTS, CONFIDENCES, st.sampled_from(["two", "lower", "upper"]))
def test_clopper_pearson_equals_beta_quantiles(counts: tuple[int, int], confidence: float, sided: str) -> None:
    successes, n = counts
    alpha = (1 - confidence) / 2 if sided == "two" else 1 - confidence
    low = stats.beta.ppf(alpha, successes, n - successes + 1) if successes and sided != "upper" else 0.0
    high = stats.beta.isf(alpha, successes + 1, n - successes) if successes < n and sided != "lower" else 1.0
    assert clopper_pearson(successes, n, confidence, sided) == pytest.approx((low, high), abs=1e-9)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(COUNTS, COUNTS)
def test_fisher_equals_scipy(new: tuple[int, int], reference: tuple[int, int]) -> None:
    (a, n), (b, m) = new, reference
    expected = stats.hypergeom.cdf(a, n + m, a + b, n) if n and m else 1.0
    assert fisher_one_sided(a, n, b, m) == pytest.approx(expected, rel=1e-7, abs=1e-14)


def test_fisher_falls_as_the_new_sample_gets_worse() -> None:
    values = [fisher_one_sided(successes, 100, 60, 100) for successes in range(101)]
    assert values == sorted(values)
    assert values[60] > 0.5
    assert values[40] < 0.01


def test_empty_samples_say_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert clopper_pearson(0, 0) == (0.0, 1.0)
    assert fisher_one_sided(0, 0, 5, 10) == 1.0
    assert binomial_tail(1, 0, 0.01) == 0.0


@pytest.mark.parametrize("counts", [(-1, 5), (6, 5), (0, -1)])
def test_impossible_counts_are_refused(counts: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="no proportion"):
        wilson_interval(*counts)
    with pytest.raises(ValueError, match="no proportion"):
        clopper_pearson(*counts)


@pytest.mark.parametrize("confidence", [0.0, 1.0, float("nan")])
def test_impossible_confidence_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence"):
        clopper_pearson(1, 2, confidence)


@pytest.mark.parametrize(
    ("first_only", "second_only", "p_value"),
    [
        (0, 0, 1.0),
        (5, 0, 2 / 2**5),
        (0, 5, 2 / 2**5),
        (8, 2, 2 * (45 + 10 + 1) / 2**10),  # as many ways as 8, 9 or 10 of 10 coins fall one way, and twice that
        (3, 3, 1.0),
    ],
)
def test_mcnemar_by_hand(first_only: int, second_only: int, p_value: float) -> None:
    assert mcnemar(first_only, second_only) == pytest.approx(p_value, rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2000), st.integers(0, 2000))
def test_mcnemar_equals_the_binomial_test(first_only: int, second_only: int) -> None:
    n = first_only + second_only
    expected = stats.binomtest(first_only, n).pvalue if n else 1.0
    assert mcnemar(first_only, second_only) == pytest.approx(expected, rel=1e-9, abs=1e-280)


def test_mcnemar_takes_counts() -> None:
    with pytest.raises(ValueError, match="no counts"):
        mcnemar(-1, 2)


@pytest.mark.parametrize(
    ("confidence", "freedom", "t"),
    [(0.95, 1, 12.7062), (0.95, 2, 4.3027), (0.95, 4, 2.7764), (0.99, 10, 3.1693), (0.90, 30, 1.6973)],
)
def test_student_quantiles_are_the_tabulated_ones(confidence: float, freedom: int, t: float) -> None:
    assert student_quantile(confidence, freedom) == pytest.approx(t, abs=5e-5)


@settings(max_examples=100, deadline=None)
@given(st.floats(0, 200), st.floats(0.5, 5000))
def test_student_equals_scipy_and_its_own_inverse(t: float, freedom: float) -> None:
    p_value = student_p_value(t, freedom)
    assert p_value == pytest.approx(2 * stats.t.sf(t, freedom), rel=1e-8, abs=1e-250)
    assert student_p_value(-t, freedom) == p_value
    if 1e-3 < p_value < 0.999:
        assert student_quantile(1 - p_value, freedom) == pytest.approx(t, rel=1e-6)


@pytest.mark.parametrize("freedom", [0, -1, float("nan")])
def test_student_needs_freedom(freedom: float) -> None:
    with pytest.raises(ValueError, match="degrees of freedom"):
        student_p_value(1, freedom)
    with pytest.raises(ValueError, match="degrees of freedom"):
        student_quantile(0.95, freedom)


SAMPLES = st.lists(st.integers(0, 500), min_size=2, max_size=8)


@settings(max_examples=60, deadline=None)
@given(SAMPLES, SAMPLES)
def test_t_intervals_equal_scipy(first: list[int], second: list[int]) -> None:
    if len(set(first)) > 1 and len(set(second)) > 1:  # SciPy warns of a sample that does not vary
        check_against_scipy(welch_t_interval(first, second), stats.ttest_ind(first, second, equal_var=False))
    size = min(len(first), len(second))
    pairs = first[:size], second[:size]
    if len({a - b for a, b in zip(*pairs, strict=True)}) > 1:
        check_against_scipy(paired_t_interval(*pairs), stats.ttest_rel(*pairs))


def check_against_scipy(found: TInterval, expected: Any) -> None:
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-8, abs=1e-14)
    assert found.freedom == pytest.approx(expected.df)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9, abs=1e-9)


def test_a_paired_t_interval_by_hand() -> None:
    found = paired_t_interval([3, 5, 10], [2, 3, 7])  # differences 1, 2, 3: mean 2, deviation 1, t(2) = 4.3027
    assert (found.difference, found.freedom) == (2, 2)
    assert (found.low, found.high) == pytest.approx((2 - 4.30265 / 3**0.5, 2 + 4.30265 / 3**0.5), abs=1e-5)


@pytest.mark.parametrize("test", [paired_t_interval, welch_t_interval])
def test_what_does_not_vary_cannot_be_judged(test: Callable[..., TInterval]) -> None:
    found = test([4, 4, 4], [1, 1, 1])
    assert (found.difference, found.low, found.high, found.p_value) == (3, 3, 3, 1)
    with pytest.raises(ValueError, match="no spread"):
        test([4], [1])


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_no_correction_and_bonferroni(p_values: list[float]) -> None:
    for raw, adjusted in zip(p_values, holm(p_values), strict=True):
        assert raw <= adjusted <= min(1.0, len(p_values) * raw) or adjusted == max(holm(p_values))
    assert min(holm(p_values)) == min(1.0, len(p_values) * min(p_values))


def test_mean_and_deviation() -> None:
    mean, deviation = mean_and_deviation([2, 4, 6])
    assert (mean, deviation) == (4, 2), "divided by n - 1"
    assert mean_and_deviation([0.3]) == (0.3, None)
    with pytest.raises(ValueError, match="no mean"):
        mean_and_deviation([])
