"""Which images lie in an attacker's ball: one test for what attacks return, for evidence and for its verifier."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compressor.core.types import Threat

_L2_ROUNDING = 1e-6
# A pixel is rounded to half of this at most, so that no ball is too small for a projection in float32.
_PIXEL_ROUNDING = 2.0**-23


def inside_ball(x_adv: NDArray[np.float32], x: NDArray[np.float32], threat: Threat) -> NDArray[np.bool_]:
    """Which adversarial images lie in the ball and in [0, 1]; a pixel that is not a number lies nowhere.

    Linf: ``fl(x - eps) <= x' <= fl(x + eps)`` in float32. L2: ``||x' - x||_2 <= eps`` in float64, to one part in a
    million and one rounding of a pixel, because projecting in float32 rounds.

    Args:
        x_adv: float32 ``[B, C, H, W]``.
        x: float32 ``[B, C, H, W]``, the centres.
        threat: the norm and the radius.

    Returns:
        bool ``[B]``.
    """
    axes = (1, 2, 3)
    in_range = ((x_adv >= 0) & (x_adv <= 1)).all(axes)
    if threat.norm == "Linf":
        eps = np.float32(threat.radius)
        return np.asarray(in_range & ((x_adv >= x - eps) & (x_adv <= x + eps)).all(axes))
    distance = np.sqrt(((x_adv.astype(np.float64) - x) ** 2).sum(axes))
    return np.asarray(in_range & (distance <= threat.radius * (1 + _L2_ROUNDING) + _PIXEL_ROUNDING))
