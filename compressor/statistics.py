"""The few statistics that a verdict rests on, in own lines: no sampling, no approximation beyond float64."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, isnan, lgamma, log, log1p, sqrt
from statistics import NormalDist
from typing import Literal

Sided = Literal["two", "lower", "upper"]

_BISECTIONS = 60
_NEGLIGIBLE = 1e-18


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
