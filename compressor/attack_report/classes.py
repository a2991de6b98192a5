"""Accuracy class by class, and what a class is taken for under attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compressor.evaluation.report import Report


@dataclass(frozen=True)
class ClassOutcome:
    """One class: its name, its number of images, and how many are right unattacked and in the worst case."""

    name: str
    n: int
    clean: int
    robust: int


@dataclass(frozen=True, eq=False)
class ConfusionMatrix:
    """What the model says in the worst case.

    Attributes:
        counts: int64 ``[K, K]``: images by right class (row) and by what the model says (column).
        unknown: images for which the model's logits are not finite; they are in no cell.
    """

    counts: NDArray[np.int64]
    unknown: int


def class_outcomes(report: Report, names: Sequence[str]) -> tuple[ClassOutcome, ...]:
    """Every class's accuracies, in the order of the labels."""
    robust = report.robust
    return tuple(
        ClassOutcome(name, int(of_class.sum()), int((report.clean & of_class).sum()), int((robust & of_class).sum()))
        for name, of_class in ((name, report.labels == k) for k, name in enumerate(names))
    )


def worst_case_confusion(report: Report, classes: int) -> ConfusionMatrix | None:
    """The worst case's confusion; ``None`` where the report kept no predictions.

    Args:
        report: with labels and predictions.
        classes: K.
    """
    if not report.predictions:
        return None
    predicted = report.worst_case_predictions
    known = (predicted >= 0) & (predicted < classes)
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (report.labels[known], predicted[known]), 1)
    return ConfusionMatrix(counts, int((~known).sum()))
