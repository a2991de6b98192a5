"""How many images are misclassified under a perturbation of a given length, a panel for each norm."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from compressor.attack_report.figures.canvas import BLUE, GREY, mark_radius, panels_to_png
from compressor.attack_report.norms import MinimalNorms
from compressor.attack_report.radii import axis_label, axis_unit, format_length
from compressor.core.types import Norm, Threat

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_norms(measured: Sequence[MinimalNorms], threat: Threat) -> bytes:
    """A PNG of the cumulative distribution of the smallest perturbations found, median and radius marked."""

    def paint(axes: Axes, norms: MinimalNorms) -> None:
        lengths, fractions = norms.cumulative()
        end = _end(lengths, norms.norm, threat)
        axes.step(
            [0.0, *lengths, end],
            [0.0, *fractions, fractions[-1] if len(fractions) else 0.0],
            where="post",
            color=BLUE,
            label="images with an error found this near",
        )
        if isfinite(norms.median):
            axes.plot([0, norms.median, norms.median], [0.5, 0.5, 0], color=GREY, linewidth=0.9, label="median")
        axes.set_title(f"median {format_length(norms.median, norms.norm)}", fontsize=9)
        mark_radius(axes, norms.norm, threat)
        axes.set_xlim(0, end)
        if norms.norm == "Linf":
            axes.xaxis.set_major_formatter(lambda radius, _: axis_label(radius, "Linf"))
            axes.set_xticks(_ticks(255 * end) / 255)
        axes.set_xlabel(axis_unit(norms.norm).replace("radius", "length"))

    return panels_to_png(paint, measured, "images, %")


def _end(lengths: np.ndarray[tuple[int], np.dtype[np.float64]], norm: Norm, threat: Threat) -> float:
    """Where the axis ends: a few far images must not squeeze all others against the left edge."""
    ends = [float(np.quantile(lengths, 0.98))] if len(lengths) else []
    ends += [1.3 * threat.radius] if norm == threat.norm else []
    return max([1.05 * end for end in ends if end > 0] or [1.0])


def _ticks(end: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Round numbers from 0 to an end, six at most."""
    power = 10.0 ** np.floor(np.log10(end))
    step = next(step for step in power * np.array([0.1, 0.2, 0.5, 1, 2, 5]) if end / step <= 6)
    return np.arange(0, end, step)
