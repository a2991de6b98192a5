"""The few statistics that verdicts and comparisons rest on, in own lines: no sampling, nothing beyond float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, isnan, lgamma, log, log1p, sqrt
from statistics import NormalDist, fmean, mean, stdev
from typing import Literal

Sided = Literal["two", "lower", "upper"]

_BISECTIONS = 60
_NEGLIGIBLE = 1e-18
_TINY = 1e-300
_LARGEST_FRACTION = 100_000


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    r"""Two-sided score interval of a proportion, used wherever an accuracy is printed.

    ``(p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)`` with ``p = successes / n``.

    Args:
        successes: how many of the trials succeeded, 0 to n.
        n: how many trials; with none, nothing is known and the interval is (0, 1).
        confidence: the coverage, in (0, 1).

    Returns:
        ``(low, high)``, both in [0, 1].

    Raises:
        ValueError: counts or confidence out of range.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    _check(successes, n, confidence)
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p, z2 = successes / n, z * z
    centre, scale = p + z2 / (2 * n), 1 + z2 / n
    half = z * sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    # At the ends the formula gives exactly 0 and 1, which rounding would miss.
    low = 0.0 if successes == 0 else max(0.0, (centre - half) / scale)
    high = 1.0 if successes == n else min(1.0, (centre + half) / scale)
    return low, high


def binomial_tail(b: int, n: int, p: float) -> float:
    """``P[Bin(n, p) >= b]``.

    Args:
        b: the count from which the tail is taken; 0 or less gives 1, above n gives 0.
        n: how many trials.
        p: the chance of each, in [0, 1].

    Returns:
        The probability, with a relative error below 1e-9 also deep in the tail (n up to 100,000).

    Raises:
        ValueError: n is negative or p is not in [0, 1].
    """
    if n < 0 or not 0 <= p <= 1:
        raise ValueError(f"no binomial distribution has n = {n} and p = {p}")
    if b <= 0 or p == 1:
        return float(b <= n)
    if b > n or p == 0:
        return 0.0
    if b > n * p:
        return min(1.0, _falling_sum(b, n, p))
    # Below the mean the other tail is the small one, and it is the same sum with success and failure exchanged.
    return max(0.0, 1.0 - _falling_sum(n - b + 1, n, 1 - p))


def clopper_pearson(successes: int, n: int, confidence: float = 0.95, sided: Sided = "two") -> tuple[float, float]:
    r"""Exact interval of a proportion: it covers the truth at least as often as it says.

    The lower bound solves ``P[Bin(n, p) >= successes] = alpha``, the upper ``P[Bin(n, p) <= successes] = alpha``, where
    ``alpha = 1 - confidence``, halved for a two-sided interval.

    Args:
        successes: how many of the trials succeeded, 0 to n.
        n: how many trials; with none the interval is (0, 1).
        confidence: the coverage, in (0, 1).
        sided: ``two``; ``lower`` spends all of alpha below and returns 1 above; ``upper`` the reverse.

    Returns:
        ``(low, high)``, both in [0, 1].

    Raises:
        ValueError: counts or confidence out of range.

    Source: Clopper & Pearson 1934, "The use of confidence or fiducial limits illustrated in the case of the binomial".
    """
    _check(successes, n, confidence)
    alpha = (1 - confidence) / 2 if sided == "two" else 1 - confidence
    low, high = 0.0, 1.0
    if sided != "upper" and successes > 0:
        low = _bisect(lambda p: binomial_tail(successes, n, p) < alpha)
    if sided != "lower" and successes < n:
        # P[Bin(n, p) <= s] is the upper tail of the failures, P[Bin(n, 1 - p) >= n - s].
        high = 1 - _bisect(lambda q: binomial_tail(n - successes, n, q) < alpha)
    return low, high


def fisher_one_sided(successes: int, n: int, reference_successes: int, reference_n: int) -> float:
    """How surprising so few successes are, if both samples have one rate: Fisher's exact test, lower tail.

    ``P[X <= successes]`` for X hypergeometric: n draws from ``n + reference_n``, of which
    ``successes + reference_successes`` succeed.

    Args:
        successes: successes of the sample under suspicion.
        n: its size.
        reference_successes: successes of the sample it is compared with.
        reference_n: the size of that.

    Returns:
        The p-value; 1 where either sample is empty.

    Raises:
        ValueError: counts out of range.

    Source: Fisher 1935, "The logic of inductive inference".
    """
    _check(successes, n, 0.5)
    _check(reference_successes, reference_n, 0.5)
    total = successes + reference_successes
    lowest, highest = max(0, total - reference_n), min(n, total)
    if successes >= highest:
        return 1.0
    logs = [
        _log_choose(n, x) + _log_choose(reference_n, total - x) - _log_choose(n + reference_n, total)
        for x in range(lowest, successes + 1)
    ]
    return min(1.0, sum(sorted(map(exp, logs))))


def mcnemar(first_only: int, second_only: int) -> float:
    """Whether two classifiers err at different rates on the same images: McNemar's exact test, two-sided.

    ``min(1, 2 P[Bin(b + c, 1/2) >= max(b, c)])`` with b and c the images that one of the two alone gets right; those on
    which they agree say nothing.

    Args:
        first_only: b, images that the first gets right and the second wrong.
        second_only: c, the reverse.

    Returns:
        The p-value; 1 where they agree on every image.

    Raises:
        ValueError: a negative count.

    Source: McNemar 1947, "Note on the sampling error of the difference between correlated proportions or percentages".
    """
    if min(first_only, second_only) < 0:
        raise ValueError(f"{first_only} and {second_only} are no counts of images")
    return min(1.0, 2 * binomial_tail(max(first_only, second_only), first_only + second_only, 0.5))


@dataclass(frozen=True)
class TInterval:
    """A difference of means with its confidence interval, and the p-value of there being none.

    Attributes:
        difference: the first mean less the second.
        low: of the interval.
        high: of the interval.
        p_value: two-sided; 1 where nothing varies, since a difference without spread cannot be judged.
        freedom: degrees of freedom of the t distribution; infinite where nothing varies.
    """

    difference: float
    low: float
    high: float
    p_value: float
    freedom: float


def paired_t_interval(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> TInterval:
    """Student's interval of a mean difference of pairs: ``d +- t(n - 1) s_d / sqrt(n)``.

    Args:
        first: one value a pair, at least 2.
        second: the other ones, in the same order.
        confidence: the coverage, in (0, 1).

    Raises:
        ValueError: fewer than two pairs, or samples of unlike length.

    Source: Student 1908, "The probable error of a mean".
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    return _t_interval(fmean(differences), _error_of_mean(differences), len(differences) - 1, confidence)


def welch_t_interval(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> TInterval:
    """Welch's interval of the difference of two samples' means, whose variances may differ.

    ``m1 - m2 +- t(f) sqrt(v1 + v2)`` with ``v = s^2 / n`` and ``f = (v1 + v2)^2 / (v1^2/(n1-1) + v2^2/(n2-1))``.

    Args:
        first: at least 2 values.
        second: at least 2 values, drawn independently of the first.
        confidence: the coverage, in (0, 1).

    Raises:
        ValueError: a sample of fewer than two.

    Source: Welch 1947, "The generalization of Student's problem when several different population variances are
    involved".
    """
    v1, v2 = _error_of_mean(first) ** 2, _error_of_mean(second) ** 2
    spread = v1**2 / (len(first) - 1) + v2**2 / (len(second) - 1)
    freedom = (v1 + v2) ** 2 / spread if spread > 0 else float("inf")
    return _t_interval(fmean(first) - fmean(second), sqrt(v1 + v2), freedom, confidence)


def student_p_value(t: float, freedom: float) -> float:
    """``P[|T| >= |t|]`` for Student's t: ``I_x(f / 2, 1 / 2)`` at ``x = f / (f + t^2)``.

    Args:
        t: any number.
        freedom: f, degrees of freedom, above 0; not necessarily whole.

    Raises:
        ValueError: f is not above 0.
    """
    if not freedom > 0:
        raise ValueError(f"Student's t needs degrees of freedom above 0, not {freedom}")
    square = t * t
    if square < 1:  # x may be close to 1 and lose digits; the complement's is close to 0
        return 1 - _incomplete_beta(square / (freedom + square), 0.5, freedom / 2)
    return _incomplete_beta(freedom / (freedom + square), freedom / 2, 0.5)


def student_quantile(confidence: float, freedom: float) -> float:
    """The t that ``|T|`` stays below with probability ``confidence``; see ``student_p_value``.

    Raises:
        ValueError: confidence is not in (0, 1), or f is not above 0.
    """
    _check(0, 0, confidence)
    if not freedom > 0:
        raise ValueError(f"Student's t needs degrees of freedom above 0, not {freedom}")
    alpha = 1 - confidence
    x = _bisect(lambda x: _incomplete_beta(x, freedom / 2, 0.5) < alpha)
    return sqrt(freedom * (1 - x) / x)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: comparing each with a level keeps the chance of any false finding below that level.

    The i-th smallest of m, from 1, becomes ``max over j <= i of min(1, (m - j + 1) p_(j))``.

    Args:
        p_values: of one family of comparisons.

    Returns:
        As many, in the same order.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean, and the sample's standard deviation (divided by n - 1), which one value alone does not have.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("nothing has no mean")
    return mean(values), stdev(values) if len(values) > 1 else None


def _t_interval(difference: float, error: float, freedom: float, confidence: float) -> TInterval:
    if error == 0:
        return TInterval(difference, difference, difference, 1.0, float("inf"))
    half = student_quantile(confidence, freedom) * error
    p_value = student_p_value(difference / error, freedom)
    return TInterval(difference, difference - half, difference + half, p_value, freedom)


def _error_of_mean(values: Sequence[float]) -> float:
    if len(values) < 2:
        raise ValueError(f"{len(values)} value(s) have no spread")
    return stdev(values) / sqrt(len(values))


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function ``I_x(a, b)``, in [0, 1]."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x))
    # The continued fraction converges fast below the mean only; above it stands the complement.
    if x < (a + 1) / (a + b + 2):
        return front * _beta_fraction(x, a, b) / a
    return 1 - front * _beta_fraction(1 - x, b, a) / b


def _beta_fraction(x: float, a: float, b: float) -> float:
    """The continued fraction ``1 / (1 + d1 / (1 + d2 / (1 + ...)))`` of ``I_x(a, b)``, by Lentz's method.

    Source: DLMF 8.17.22; Lentz 1976, "Generating Bessel functions in Mie scattering calculations".
    """
    value, upper, lower = 1.0, 1.0, 0.0
    for n in range(_LARGEST_FRACTION):
        m = n // 2
        if n == 0:
            term = 1.0
        elif n % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        lower = 1 / _away_from_0(1 + term * lower)
        upper = _away_from_0(1 + term / upper)
        value *= upper * lower
        if abs(1 - upper * lower) < 1e-15:
            break
    return value - 1


def _away_from_0(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def _falling_sum(b: int, n: int, p: float) -> float:
    """Sum the terms from ``b`` upwards, ``b`` above the mean: they fall, so the rest is soon negligible."""
    term = total = exp(_log_choose(n, b) + b * log(p) + (n - b) * log1p(-p))
    odds = p / (1 - p)
    for k in range(b, n):
        term *= odds * (n - k) / (k + 1)
        total += term
        if term < total * _NEGLIGIBLE:
            break
    return total


def _bisect(is_below: Callable[[float], bool]) -> float:
    """The point of [0, 1] at which a rising function stops being below its target."""
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return (low + high) / 2


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def _check(successes: int, n: int, confidence: float) -> None:
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes in {n} trials make no proportion")
    if isnan(confidence) or not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} is not between 0 and 1")
