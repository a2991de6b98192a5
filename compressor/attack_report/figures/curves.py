"""Accuracy against the radius, a panel for each norm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from compressor.attack_report.curve import Curve
from compressor.attack_report.figures.canvas import BLUE, mark_radius, panels_to_png
from compressor.attack_report.radii import axis_label, axis_unit
from compressor.core.types import Threat

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_curves(curves: Sequence[Curve], threat: Threat) -> bytes:
    """A PNG of accuracy with its 95 % band, the evaluation's radius marked."""

    def paint(axes: Axes, curve: Curve) -> None:
        radii = [point.radius for point in curve.points]
        low, high = zip(*(point.interval for point in curve.points), strict=True)
        axes.fill_between(radii, low, high, color=BLUE, alpha=0.18, linewidth=0, label="95 % interval")
        accuracies = [point.accuracy for point in curve.points]
        axes.plot(radii, accuracies, color=BLUE, marker="o", markersize=4, label="accuracy under PGD-20", clip_on=False)
        mark_radius(axes, curve.norm, threat)
        labels = {radius: axis_label(radius, curve.norm) for radius in radii}
        ticks = _apart(labels)
        axes.set_xticks(ticks, labels=[labels[radius] for radius in ticks])
        axes.set_xlim(0, max(radii))
        axes.set_xlabel(axis_unit(curve.norm))

    return panels_to_png(paint, curves, "accuracy, %")


def _apart(labels: Mapping[float, str]) -> list[float]:
    """Those radii whose labels do not run into each other: the ends first, then from the right, where there is room."""
    letter = 0.02 * max(labels)
    kept: list[float] = []
    for radius in dict.fromkeys([min(labels), *sorted(labels, reverse=True)]):
        if all(abs(radius - other) >= letter * ((len(labels[radius]) + len(labels[other])) / 2 + 1) for other in kept):
            kept.append(radius)
    return sorted(kept)
