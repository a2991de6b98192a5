"""``profile.json``: where the time of a run's steps went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from compressor.training.timing import PARTS


def profile(timings: Sequence[Mapping[str, Any]], unfinished: Mapping[str, float]) -> dict[str, Any]:
    """Add up the parts' seconds over epochs.

    Args:
        timings: the epochs' records, as in ``timings.jsonl``; those without ``parts`` are left out.
        unfinished: seconds by part of the epoch that is not over; zeros where there is none.

    Returns:
        ``seconds`` and ``fractions`` by part, and ``epochs``, the records that have parts.
    """
    epochs = [dict(record) for record in timings if "parts" in record]
    seconds = {part: sum(epoch["parts"][part] for epoch in epochs) + unfinished[part] for part in PARTS}
    total = sum(seconds.values())
    fractions = {part: value / total if total else 0.0 for part, value in seconds.items()}
    return {"schema": "compress.profile/1", "seconds": seconds, "fractions": fractions, "epochs": epochs}
