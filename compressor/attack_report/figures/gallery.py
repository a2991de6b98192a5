"""Broken images side by side: natural, what was added, adversarial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from compressor.attack_report.figures.canvas import INK, short, to_png
from compressor.attack_report.gallery import Example, Prediction, largest_change
from compressor.attack_report.radii import format_threat
from compressor.core.types import Threat

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_IMAGE_INCHES, _TEXT_INCHES, _HEAD_INCHES, _GAP_INCHES = 1.3, 1.35, 0.5, 0.08
_MID_GREY = 0.5


def draw_gallery(examples: tuple[Example, ...], names: Sequence[str], threat: Threat) -> bytes:
    """A PNG of a row for each example; all perturbations are scaled alike, around mid-grey."""
    scale = _MID_GREY / (largest_change(examples) or 1.0)

    widths = [_TEXT_INCHES, *[_IMAGE_INCHES] * 3, _TEXT_INCHES]
    titles = ("natural", f"perturbation\n× {scale:.3g}, on grey", f"adversarial\n{format_threat(threat)}")

    def paint(figure: Figure) -> None:
        rows = figure.subplots(len(examples), len(widths), squeeze=False, width_ratios=widths)
        for axes, title in zip(rows[0][1:4], titles, strict=True):
            axes.set_title(title, fontsize=9)
        for (left, natural, change, adversarial, right), example in zip(rows, examples, strict=True):
            _show(natural, example.natural)
            _show(change, _MID_GREY + scale * (example.adversarial - example.natural))
            _show(adversarial, example.adversarial)
            right_class = f"right class\n{short(names[example.label])}"
            _write(left, f"image {example.position}\n\n{right_class}\n\n{_says(example.before, names)}", "right")
            _write(right, f"{short(example.column)}\n\n{_says(example.after, names)}", "left")

    return to_png(paint, sum(widths) + 4 * _GAP_INCHES, _HEAD_INCHES + (_IMAGE_INCHES + _GAP_INCHES) * len(examples))


def _says(answer: Prediction, names: Sequence[str]) -> str:
    return f"the model says\n{short(names[answer.label])}, {100 * answer.confidence:.0f} %"


def _show(axes: Axes, image: NDArray[np.float32]) -> None:
    """One image ``[C, H, W]``; a single channel is grey."""
    pixels = np.clip(image.transpose(1, 2, 0), 0, 1)
    if pixels.shape[2] == 1:
        axes.imshow(pixels[:, :, 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    else:
        axes.imshow(pixels, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _write(axes: Axes, text: str, align: Literal["left", "right"]) -> None:
    """Text in a field of its own, on the side of the images."""
    axes.set_axis_off()
    place = 0.0 if align == "left" else 1.0
    axes.text(place, 0.5, text, transform=axes.transAxes, ha=align, va="center", color=INK, fontsize=8)
