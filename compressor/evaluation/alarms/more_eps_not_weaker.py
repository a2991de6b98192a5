"""More images are robust at a larger radius than at a smaller one."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from compressor.evaluation.alarms._chance import weaker_attack_wins
from compressor.evaluation.alarms._contract import ExaminedEvaluation
from compressor.evaluation.alarms._probing import robust_against, scaled_threat


@dataclass(frozen=True)
class MoreEpsNotWeaker:
    """Attack the sample at several radii with one short attack.

    Attributes:
        factors: the radii, in radii of the threat, ascending.
        steps: of each attack.
    """

    meaning: ClassVar[str] = (
        "Whatever a small ball holds, a larger one holds too, so a search that finds less there has lost its way: the "
        "gradients mislead it, and it may have lost its way at this eps as well."
    )

    factors: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    steps: int = 5

    def __call__(self, examined: ExaminedEvaluation) -> str | None:
        """Compare every two radii that follow each other."""
        if not examined.is_differentiable:
            return None
        settings = {"steps": self.steps, "step_size": "0.5eps", "decide": "first"}
        balls = [scaled_threat(examined.threat, factor) for factor in self.factors]
        robust = [robust_against(examined, ball, "pgd-sat", settings) for ball in balls]
        for (small, few), (large, many) in pairwise(zip(balls, robust, strict=True)):
            only_small, only_large = int((many & ~few).sum()), int((few & ~many).sum())
            if weaker_attack_wins(only_small, only_large, len(few)):
                return (
                    f"{int(many.sum())} of {len(few)} images are robust at eps {large.radius:.4g}, and "
                    f"{int(few.sum())} at {small.radius:.4g}"
                )
        return None


CHECK = MoreEpsNotWeaker()
