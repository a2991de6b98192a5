"""How many broken images refute a claim: the only numbers that decide between holds and violated."""

from __future__ import annotations

from compressor.numerics.statistics import binomial_tail, fisher_one_sided

ALLOWANCE = 0.01
"""One image in a hundred may break by attack variance alone: a constant of the protocol."""

SIGNIFICANCE = 0.01


def is_refuted(broken: int, attacked: int) -> bool:
    """Whether ``P[Bin(attacked, 0.01) >= broken] < 0.01``: more images were broken than attack variance explains."""
    return broken > 0 and binomial_tail(broken, attacked, ALLOWANCE) < SIGNIFICANCE


def is_refuted_by_other_images(robust: int, samples: int, claimed_robust: int, claimed_samples: int) -> bool:
    """Whether new images of the verifier's own are robust significantly less often than claimed (Fisher, one-sided)."""
    return fisher_one_sided(robust, samples, claimed_robust, claimed_samples) < SIGNIFICANCE


def robust_estimate(claimed_robust: int, broken: int, attacked: int) -> int:
    """``k - b``; where only a part of the k was attacked, its share of broken images is taken for the whole."""
    if attacked == 0:
        return claimed_robust
    return claimed_robust - -(-broken * claimed_robust // attacked)
