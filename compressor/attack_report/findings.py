"""All that an attack report says, as values: figures, tables and the page are drawn from this and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.attack_report.classes import ClassOutcome, ConfusionMatrix, class_outcomes, worst_case_confusion
from compressor.attack_report.columns import ColumnOutcome, column_outcomes
from compressor.attack_report.curve import Curve, CurvePoint
from compressor.attack_report.gallery import Example
from compressor.attack_report.norms import MinimalNorms
from compressor.attack_report.targeted import Targeted
from compressor.evaluation.report import Report
from compressor.numerics.statistics import wilson_interval
from compressor.version import __version__

SCHEMA = "compress.attack-report/1"

# A distance this close to the radius may lie outside the ball in the last bit of a pixel.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class AttackedModel:
    """What was attacked.

    Attributes:
        model: its name: the file's, without a folder.
        model_sha256: of the file.
        dataset: the name of the data.
        test_sha256: the digest of the images attacked; see ``datasets.digest``.
        class_names: in the order of the labels.
        image_shape: ``(C, H, W)``.
    """

    model: str
    model_sha256: str
    dataset: str
    test_sha256: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class ReportFindings:
    """What an evaluation found, and what was measured besides on a sample of its images.

    Attributes:
        about: what was attacked.
        report: the evaluation, on all images, with labels.
        positions: where the sample lies among them.
        labels: of the sample.
        curves: accuracy against the radius, one for each norm.
        norms: the smallest perturbations, one for each norm.
        targeted: attempts at chosen classes.
        examples: broken images.
        drawn: how many broken images were drawn to be shown.
    """

    about: AttackedModel
    report: Report
    positions: tuple[int, ...]
    labels: tuple[int, ...]
    curves: tuple[Curve, ...]
    norms: tuple[MinimalNorms, ...]
    targeted: Targeted
    examples: tuple[Example, ...]
    drawn: int

    @property
    def columns(self) -> tuple[ColumnOutcome, ...]:
        """Every attack and stage."""
        return column_outcomes(self.report)

    @property
    def classes(self) -> tuple[ClassOutcome, ...]:
        """Every class."""
        return class_outcomes(self.report, self.about.class_names)

    @property
    def confusion(self) -> ConfusionMatrix | None:
        """What the model says in the worst case; ``None`` where that was not kept."""
        return worst_case_confusion(self.report, len(self.about.class_names))

    @property
    def missed(self) -> tuple[int, ...]:
        """Positions of images that are robust in the evaluation and misclassified here, inside the same ball.

        Each is an error of the evaluation: the true accuracy is lower than it says.
        """
        threat, positions = self.report.threat, np.array(self.positions)
        broken = np.zeros(len(positions), dtype=bool)
        for point in (point for curve in self.curves if curve.norm == threat.norm for point in curve.points):
            if 0 < point.radius <= threat.radius:
                broken |= ~np.array(point.robust)
        for found in (found for found in self.norms if found.norm == threat.norm):
            broken |= found.distances < threat.radius * (1 - _ROUNDING)
        return tuple(int(position) for position in positions[broken & self.report.robust[positions]])

    def to_json(self) -> dict[str, Any]:
        """The content of ``report.json``: nothing in it depends on the machine's clock or folders."""
        found = self.confusion
        return {
            "schema": SCHEMA,
            "version": __version__,
            "about": {
                **vars(self.about),
                "class_names": list(self.about.class_names),
                "image_shape": list(self.about.image_shape),
            },
            "evaluation": self.report.to_json(),
            "columns": [_with_interval(column) for column in self.columns],
            "classes": [_class(outcome) for outcome in self.classes],
            "confusion": None if found is None else {"cells": _cells(found.counts), "unknown": found.unknown},
            "sample": {"positions": list(self.positions), "labels": list(self.labels), "missed": list(self.missed)},
            "curves": {curve.norm: [_point(point) for point in curve.points] for curve in self.curves},
            "norms": {
                norms.norm: {
                    "median": _finite(norms.median),
                    "distances": [_finite(float(distance)) for distance in norms.distances],
                }
                for norms in self.norms
            },
            "targeted": {
                "attempts": _cells(self.targeted.attempts),
                "successes": _cells(self.targeted.successes),
                "rate": self.targeted.rate,
            },
            "gallery": {"drawn": self.drawn, "shown": [_example(example) for example in self.examples]},
        }


def _with_interval(column: ColumnOutcome) -> dict[str, Any]:
    return {**vars(column), "accuracy": column.accuracy, "interval": list(wilson_interval(column.correct, column.n))}


def _point(point: CurvePoint) -> dict[str, Any]:
    return {
        "eps": point.eps,
        "radius": point.radius,
        "correct": point.correct,
        "images": point.n,
        "standing": "".join("01"[is_robust] for is_robust in point.robust),
        "accuracy": point.accuracy,
        "interval": list(point.interval),
    }


def _class(outcome: ClassOutcome) -> dict[str, Any]:
    rates: Mapping[str, int] = {"clean": outcome.clean, "robust": outcome.robust}
    return {
        "name": outcome.name,
        "images": outcome.n,
        **{f"{name}_correct": count for name, count in rates.items()},
        **{f"{name}_accuracy": count / outcome.n if outcome.n else None for name, count in rates.items()},
        **{f"{name}_interval": list(wilson_interval(count, outcome.n)) for name, count in rates.items()},
    }


def _cells(counts: NDArray[np.int64]) -> list[list[int]]:
    """``[row, column, count]`` of every cell that is not 0: of a thousand classes most are."""
    return [[int(row), int(column), int(counts[row, column])] for row, column in np.argwhere(counts)]


def _example(example: Example) -> dict[str, Any]:
    return {
        "position": example.position,
        "column": example.column,
        "label": example.label,
        "before": vars(example.before),
        "after": vars(example.after),
    }


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None
