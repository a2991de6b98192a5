"""The model answers the same images differently from one time to the next."""

from __future__ import annotations

from compressor.evaluation.alarms._contract import AlarmCheck, ExaminedEvaluation


def _find(examined: ExaminedEvaluation) -> str | None:
    """Ask for the same batch again and compare, and count the images that get another answer."""
    count, n = int(examined.is_randomised.sum()), len(examined.x)
    return f"{count} of {n} images get other logits when they are asked for again" if count else None


CHECK = AlarmCheck(
    "An attack that follows one draw of a random model is judged by another, so an accuracy is partly chance: "
    "attack the average over many draws (EOT), or evaluate with the randomness switched off.",
    _find,
)
