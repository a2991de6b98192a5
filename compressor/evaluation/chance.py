"""Whether a count of images is more than chance: what one image does, no alarm should hang on.

The engine's alarms and the verifier's allow the same.
"""

from __future__ import annotations

from compressor.numerics.statistics import binomial_tail, clopper_pearson

WEAKER_ADVANTAGE_ALLOWED = 0.005
"""The part of the images by which a weaker attack may beat a stronger one."""

USELESS_GRADIENTS_ALLOWED = 0.05
"""The part of the images that may have no gradient."""

_LEVEL = 0.01


def rate_exceeds(count: int, n: int, allowed: float) -> bool:
    """Whether ``count`` of ``n`` images shows a rate above ``allowed``: its lower 95 % Clopper-Pearson bound does."""
    return clopper_pearson(count, n, 0.95, "lower")[0] > allowed


def weaker_attack_wins(weaker_only: int, stronger_only: int, n: int) -> bool:
    """Whether the weaker of two attacks broke more of the same images, beyond chance and beyond what is allowed.

    Args:
        weaker_only: b, images that the weaker attack broke and the stronger did not.
        stronger_only: c, images that the stronger attack broke and the weaker did not.
        n: all images.

    Returns:
        Whether ``P[Bin(b + c, 1/2) >= b] < 0.01``, and ``b - c`` of ``n`` exceeds the allowance.
    """
    excess = weaker_only - stronger_only
    surprise = binomial_tail(weaker_only, weaker_only + stronger_only, 0.5)
    return excess > 0 and surprise < _LEVEL and rate_exceeds(excess, n, WEAKER_ADVANTAGE_ALLOWED)
