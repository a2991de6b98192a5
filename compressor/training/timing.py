"""Where a step's time goes: seconds by part, measured by the clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

PARTS = ("data", "teacher", "attack", "outer", "logging")


class Stopwatch:
    """Adds up the seconds spent in each of ``PARTS``.

    A GPU's work is queued, so that without waiting for it a part's time says little; waiting costs a little speed.

    Args:
        device: where the work is done.
        wait: whether to wait for a GPU at the parts' borders; a CPU needs no waiting.
    """

    def __init__(self, device: torch.device, *, wait: bool) -> None:
        self.is_exact = device.type == "cpu" or wait
        self._device = device
        self._seconds = dict.fromkeys(PARTS, 0.0)

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
