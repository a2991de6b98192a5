"""The statistics against SciPy, and against the numbers that the protocol prints."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from compressor.statistics import binomial_tail, clopper_pearson, fisher_one_sided, wilson_interval

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
