"""An attack returned images outside the ball, outside [0, 1] or not finite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compressor.evaluation.alarms._contract import ExaminedEvaluation


@dataclass(frozen=True)
class OutsideTheRange:
    """Read what the evaluation counted of the images that it judged."""

    meaning: ClassVar[str] = (
        "Such an image says nothing of this threat and counts for nothing, so the attack that made it has a fault and "
        "measured less than it should: leave it out, and report it."
    )

    def __call__(self, examined: ExaminedEvaluation) -> str | None:
        """Name the attacks and their counts."""
        found = [f"{name} {count}" for name, count in examined.report.outside.items() if count]
        return f"images outside the ball, outside [0, 1] or not finite: {', '.join(found)}" if found else None


CHECK = OutsideTheRange()
