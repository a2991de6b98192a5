"""More images are robust at a larger radius than at a smaller one."""

from __future__ import annotations

from itertools import pairwise

from compressor.evaluation.alarms._contract import AlarmCheck, ExaminedEvaluation
from compressor.evaluation.alarms._probing import robust_against, scaled_threat
from compressor.evaluation.chance import weaker_attack_wins

_FACTORS = (0.5, 1.0, 2.0, 4.0)
"""The radii of the attacks, in radii of the threat."""

_STEPS = 5


def _find(examined: ExaminedEvaluation) -> str | None:
    """Attack the sample at several radii with one short attack, and compare every two that follow each other."""
    if not examined.is_differentiable:
        return None
    settings = {"steps": _STEPS, "step_size": "0.5eps", "decide": "first"}
    balls = [scaled_threat(examined.threat, factor) for factor in _FACTORS]
    robust = [robust_against(examined, ball, "pgd-sat", settings) for ball in balls]
    for (small, few), (large, many) in pairwise(zip(balls, robust, strict=True)):
        only_small, only_large = int((many & ~few).sum()), int((few & ~many).sum())
        if weaker_attack_wins(only_small, only_large, len(few)):
            return (
                f"{int(many.sum())} of {len(few)} images are robust at eps {large.radius:.4g}, and "
                f"{int(few.sum())} at {small.radius:.4g}"
            )
    return None


CHECK = AlarmCheck(
    "Whatever a small ball holds, a larger one holds too, so a search that finds less there has lost its way: the "
    "gradients mislead it, and it may have lost its way at this eps as well.",
    _find,
)
