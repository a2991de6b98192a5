"""The clock of a training: an epoch's rate, the estimate after the first steps, and when to save next."""

from __future__ import annotations

import time

from compressor.core.contracts import Progress
from compressor.core.reporting import Reporter

_SAVE_EVERY_SECONDS = 300.0
_ESTIMATE_STEPS = 3


class EpochClock:
    """Looks at the clock, and decides nothing that a result depends on.

    Args:
        first_step: of the epoch in which this start begins.
    """

    def __init__(self, first_step: int) -> None:
        self._first_step: int | None = first_step
        self._saved = self._started = time.monotonic()
        self._images_before = 0

    def start_epoch(self, images: int) -> None:
        """An epoch begins, or goes on, with so many images done."""
        self._started, self._images_before = time.monotonic(), images

    def end_epoch(self, images: int) -> dict[str, float]:
        """The epoch ends with so many images done; returns its ``seconds`` and ``images_per_second``."""
        self._first_step = None  # one estimate a start is enough
        seconds = time.monotonic() - self._started
        return {"seconds": seconds, "images_per_second": (images - self._images_before) / seconds}

    def estimate(self, reporter: Reporter, progress: Progress) -> None:
        """Tell how long the rest will take, once, after a few steps."""
        if self._first_step is None or progress.step - self._first_step != _ESTIMATE_STEPS:
            return
        seconds = (time.monotonic() - self._started) / (_ESTIMATE_STEPS + 1)
        left = (progress.epochs - progress.epoch) * progress.steps - progress.step - 1
        reporter.note(
            f"training will take about {left * seconds / 60:.0f} min more, by the first {_ESTIMATE_STEPS + 1} steps"
        )

    def save_is_due(self) -> bool:
        """Whether the last save is long ago; answering yes counts as saving."""
        due = time.monotonic() - self._saved > _SAVE_EVERY_SECONDS
        if due:
            self.saved()
        return due

    def saved(self) -> None:
        """The state has been saved just now."""
        self._saved = time.monotonic()
