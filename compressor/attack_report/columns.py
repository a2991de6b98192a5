"""What each attack of a suite found: its accuracy, how many images it broke, and how many that no other did."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from compressor.evaluation.report import Report


@dataclass(frozen=True)
class ColumnOutcome:
    """One attack, or one stage of an attack that has several.

    Attributes:
        name: the column's.
        stage: the stage's; ``None`` for the whole column.
        correct: how many images are classified correctly under it; of a stage, after it and the stages before it.
        n: of how many.
        broken: images that the model gets right unattacked and wrong under it; of a stage, images
            that were robust so far.
        unique_successes: how many of those no other column broke. ``None`` for a single column and within a cascade,
            where each attack sees only the images that are robust so far.
    """

    name: str
    stage: str | None
    correct: int
    n: int
    broken: int
    unique_successes: int | None

    @property
    def accuracy(self) -> float:
        """The fraction of images that are classified correctly under it."""
        return self.correct / self.n


def column_outcomes(report: Report) -> tuple[ColumnOutcome, ...]:
    """Every column of a report in order, each followed by its stages."""
    return tuple(_outcomes(report))


def _outcomes(report: Report) -> Iterator[ColumnOutcome]:
    before = report.clean
    for name, right in report.attacks.items():
        newly_broken = before & ~right
        compared = report.mode == "alone" and len(report.attacks) > 1
        alone = report.unique_successes[name] if compared else None
        yield ColumnOutcome(name, None, int((before & right).sum()), report.samples, int(newly_broken.sum()), alone)
        yield from _stages(report, name, int(before.sum()))
        if report.mode == "cascade":
            before = right


def _stages(report: Report, name: str, robust_so_far: int) -> Iterator[ColumnOutcome]:
    stages, breaker = report.broken_by.get(name, ((), np.zeros(0, dtype=np.int64)))
    for number, stage in enumerate(stages):
        broke = int((breaker == number).sum())
        robust_so_far -= broke
        yield ColumnOutcome(name, stage, robust_so_far, report.samples, broke, None)
