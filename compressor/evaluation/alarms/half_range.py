"""Images seem robust at eps = 0.5, where every ball holds the grey picture and much of every other image."""

from __future__ import annotations

from math import sqrt

import numpy as np
import torch
from torch import Tensor

from compressor.core.types import Threat
from compressor.evaluation.alarms._contract import AlarmCheck, ExaminedEvaluation
from compressor.evaluation.alarms._probing import robust_against
from compressor.numerics.ascent import project
from compressor.numerics.losses import is_wrong

_LARGEST_L2 = 1000.0
_IMAGES = 16


def _find(examined: ExaminedEvaluation) -> str | None:
    """Attack a few images with half of the pixel range, and count the robust ones that are known to be breakable.

    A robust image counts against the attacks only with a witness: a picture in its ball (grey, or another image brought
    into the ball) that the model gets wrong, found without any gradient. So a model that gives everything one class
    raises no alarm: nothing can break it, and no attack has missed anything.
    """
    if not examined.is_differentiable:
        return None
    threat = _half_of_the_range(examined)
    # Any images do; those at the front of the sample would be of the lowest positions, which may be of one class.
    chosen = np.zeros(len(examined.x), dtype=bool)
    right = np.flatnonzero(examined.right.cpu().numpy())
    chosen[right[:: max(1, -(-len(right) // _IMAGES))]] = True
    robust = chosen
    for loss, steps in (("cw_margin", 20), ("cross_entropy", 20), ("cw_margin", 40)):
        settings = {"steps": steps, "step_size": "0.1eps", "loss": loss, "decide": "first"}
        robust = robust_against(examined, threat, "pgd-sat", settings, among=robust)
        if not robust.any():
            return None
    missed = sum(_has_witness(examined, int(row), threat) for row in np.flatnonzero(robust))
    if not missed:
        return None
    return (
        f"{missed} of {int(chosen.sum())} images are robust at {threat.norm} {threat.radius:.4g}, "
        "though other pictures in their balls are classified otherwise"
    )


def _half_of_the_range(examined: ExaminedEvaluation) -> Threat:
    """The ball that holds the grey picture, whatever its centre."""
    if examined.threat.norm == "Linf":
        return Threat("Linf", "0.5")
    # Rounded up, so that a black image's ball holds grey too.
    return Threat("L2", f"{min(_LARGEST_L2, 0.5 * sqrt(examined.x[0].numel()) + 1e-6):.6f}")


def _has_witness(examined: ExaminedEvaluation, row: int, threat: Threat) -> bool:
    pictures = _pictures_around(examined, examined.x[row : row + 1], threat)
    return bool(is_wrong(examined.ask(pictures), examined.y[row].expand(len(pictures))).any())


def _pictures_around(examined: ExaminedEvaluation, x: Tensor, threat: Threat) -> Tensor:
    """Grey and the sample's images, brought into the ball of ``x`` ``[1, C, H, W]``."""
    return project(torch.cat([torch.full_like(x, 0.5), examined.x]), x, threat)


CHECK = AlarmCheck(
    "An attack that cannot break an image with half of the pixel range is misled by masked gradients, and its "
    "failure at a small eps proves nothing: take out what masks the gradients, and attack that.",
    _find,
)
