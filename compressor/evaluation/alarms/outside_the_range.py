"""An attack returned images outside the ball, outside [0, 1] or not finite."""

from __future__ import annotations

from compressor.evaluation.alarms._contract import AlarmCheck, ExaminedEvaluation


def _find(examined: ExaminedEvaluation) -> str | None:
    """Read what the evaluation counted of the images that it judged, and name the attacks and their counts."""
    found = [f"{name} {count}" for name, count in examined.report.outside.items() if count]
    return f"images outside the ball, outside [0, 1] or not finite: {', '.join(found)}" if found else None


CHECK = AlarmCheck(
    "Such an image says nothing of this threat and counts for nothing, so the attack that made it has a fault and "
    "measured less than it should: leave it out, and report it.",
    _find,
)
