"""What each class is taken for under attack, as a coloured matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from compressor.attack_report.classes import ConfusionMatrix
from compressor.attack_report.figures.canvas import short, to_png
from compressor.attack_report.radii import format_threat
from compressor.core.types import Threat

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Above these a cell is too small for its number, and a row for its name.
_LARGEST_WITH_NUMBERS = 20
_LARGEST_WITH_NAMES = 40
# Colours go with the square root of a fraction: a class that is rarely mistaken for another must still show.
_GAMMA = 0.5
_WHITE_ABOVE = 0.35


def draw_confusion(found: ConfusionMatrix, names: Sequence[str], threat: Threat) -> bytes:
    """A PNG with rows of right classes and columns of answers; colours are fractions of a row, numbers are images."""
    classes = len(names)
    fractions = found.counts / np.maximum(1, found.counts.sum(axis=1, keepdims=True))

    def paint(figure: Figure) -> None:
        from matplotlib.colors import PowerNorm

        axes = figure.subplots()
        image = axes.imshow(fractions, cmap="Blues", norm=PowerNorm(_GAMMA, 0, 1), interpolation="nearest")
        bar = figure.colorbar(image, ax=axes, shrink=0.85, pad=0.02)
        bar.set_ticks([0, 0.05, 0.25, 0.5, 1], labels=["0", "5", "25", "50", "100"])
        bar.set_label("of the class's images, %")
        bar.outline.set_visible(False)
        axes.spines[:].set_visible(False)
        axes.set_title(f"{format_threat(threat)}, worst case")
        axes.set_xlabel("what the model says")
        axes.set_ylabel("right class")
        _name(axes, names)
        if classes <= _LARGEST_WITH_NUMBERS:
            _number(axes, found.counts, fractions)

    side = min(10.0, max(3.2, 1.6 + 0.42 * classes))
    return to_png(paint, side + 0.9, side)


def _name(axes: Axes, names: Sequence[str]) -> None:
    if len(names) > _LARGEST_WITH_NAMES:
        return  # matplotlib's own ticks: labels by number
    places, texts = range(len(names)), [short(name) for name in names]
    sideways = max(map(len, texts)) > 3
    axes.set_xticks(places, labels=texts, rotation=90 if sideways else 0)
    axes.set_yticks(places, labels=texts)
    axes.tick_params(length=0)


def _number(
    axes: Axes,
    counts: np.ndarray[tuple[int, int], np.dtype[np.int64]],
    fractions: np.ndarray[tuple[int, int], np.dtype[np.float64]],
) -> None:
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if fractions[row, column] > _WHITE_ABOVE else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
