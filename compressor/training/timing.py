"""Where a step's time goes: seconds by part, measured by the clock, and ``profile.json``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

PARTS = ("data", "teacher", "attack", "outer", "logging")


class Stopwatch:
    """Adds up the seconds spent in each of ``PARTS``.

    A GPU's work is queued, so that without waiting for it a part's time says little; waiting costs a little speed.

    Args:
        device: where the work is done.
        profile: whether the split is asked for, and worth waiting for a GPU at the parts' borders.
    """

    def __init__(self, device: torch.device, *, profile: bool) -> None:
        self.profile = profile
        self._device = device
        self._seconds = dict.fromkeys(PARTS, 0.0)

    @property
    def is_exact(self) -> bool:
        """Whether a part's seconds are those of its work: on a CPU always, on a GPU where it is waited for."""
        return self.profile or self._device.type == "cpu"

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the block's time as ``name``'s."""
        started = self._now()
        try:
            yield
        finally:
            self._seconds[name] += self._now() - started

    def read(self) -> dict[str, float]:
        """Seconds by part since the last reset."""
        return dict(self._seconds)

    def reset(self) -> None:
        """Begin at zero."""
        self._seconds = dict.fromkeys(PARTS, 0.0)

    def split(self) -> str:
        """The parts as percentages of their sum, largest first, such as ``attack 61 %, outer 38 %, data 0.4 %``."""
        total = sum(self._seconds.values()) or 1.0
        shares = sorted(((100 * s / total, name) for name, s in self._seconds.items()), reverse=True)
        return ", ".join(f"{name} {share:.{0 if share >= 10 else 1}f} %" for share, name in shares if share >= 0.05)

    def _now(self) -> float:
        if self.is_exact and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def profile(timings: Sequence[Mapping[str, Any]], unfinished: Mapping[str, float]) -> dict[str, Any]:
    """Add up the parts' seconds over epochs, for ``profile.json``.

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
