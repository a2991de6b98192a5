"""Pictures that small networks learn in a few steps, and a reporter that watches a run and stops it."""

from __future__ import annotations

import numpy as np

from compressor.core.contracts import Split, SplitName
from compressor.core.reporting import SilentReporter
from compressor.system.interruption import StopRequest


class Stripes:
    """Three classes that a small network soon tells apart: horizontal, vertical and plain pictures."""

    name = "stripes"
    class_names = ("horizontal", "vertical", "plain")
    image_size = 16

    def __init__(self, total: int) -> None:
        self.total = total

    def has(self, split: SplitName) -> bool:
        return split != "validation"

    def load(self, split: SplitName) -> Split:
        rng = np.random.default_rng({"train": 0, "test": 1, "validation": 2}[split])
        labels = np.arange(self.total) % 3
        base = np.zeros((3, 3, 16, 16))
        base[0, :, ::4], base[1, :, :, ::4], base[2] = 200, 200, 50
        noise = rng.integers(0, 50, (self.total, 3, 16, 16))
        return Split((base[labels] + noise).astype(np.uint8), labels.astype(np.int64))


class Watcher(SilentReporter):
    """Remembers what it was told, and asks to stop after some steps."""

    def __init__(self, stop: StopRequest | None = None, after: int = 0) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.steps = 0
        self._stop, self._after = stop, after

    def advance(self, done: int, total: int, detail: str = "") -> None:
        self.steps += 1
        if self._stop is not None and self.steps == self._after:
            self._stop.signum = 15

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)
