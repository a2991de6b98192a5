"""What all figures share: matplotlib without its global state, one style, and PNG files without a clock."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from compressor.attack_report.radii import format_threat
from compressor.core.errors import MissingPackageError
from compressor.core.types import Norm, Threat

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150

Panel = TypeVar("Panel")

# Okabe and Ito's colours, which people tell apart whatever cones they have.
BLUE, ORANGE, GREY, INK = "#0072B2", "#D55E00", "#767676", "#303030"

_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    # A class may be called "$1": names are text, never formulas.
    "text.parse_math": False,
}


def require_matplotlib() -> None:
    """Say that figures can't be drawn before anything long is begun.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingPackageError(
            "the figures of a report need matplotlib, which is not installed.", "pip install 'robust-compress[figures]'"
        ) from None


def to_png(paint: Callable[[Figure], None], width: float, height: float) -> bytes:
    """Draw a figure of a size in inches: the same bytes for the same data, whatever the user's own settings are.

    Args:
        paint: draws on the empty figure.
        width: in inches, of ``DPI`` pixels each.
        height: likewise.
    """
    require_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        # A class name in a script that the font lacks is drawn as boxes; that is no news for the terminal.
        warnings.filterwarnings("ignore", message="Glyph")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(width, height))
        paint(figure)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()


def panels_to_png(paint: Callable[[Axes, Panel], None], panels: Sequence[Panel], label: str) -> bytes:
    """Draw one panel for each value side by side, all from 0 to 100 % of what the label names, with one legend."""

    def paint_all(figure: Figure) -> None:
        row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, panel in zip(row, panels, strict=True):
            paint(axes, panel)
            axes.set_ylim(0, 1)
            axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0], labels=["0", "20", "40", "60", "80", "100"])
            axes.grid(axis="y")
        row[0].set_ylabel(label)
        legend_below(figure)

    return to_png(paint_all, 4.2 * len(panels) + 0.4, 3.4)


def mark_radius(axes: Axes, norm: Norm, threat: Threat) -> None:
    """A dotted vertical line where the evaluation's own radius is, if this panel's norm is the evaluation's."""
    if norm == threat.norm:
        label = f"evaluated at {format_threat(threat)}"
        axes.axvline(threat.radius, color=ORANGE, linewidth=1.1, linestyle=(0, (2, 2)), label=label, zorder=1)


def legend_below(figure: Figure) -> None:
    """One legend under all panels, outside the data; each thing once."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=len(found))


def short(name: str, longest: int = 14) -> str:
    """A name that fits; of a longer one the beginning and the end, where numbered names differ."""
    end = longest // 3
    return name if len(name) <= longest else f"{name[: longest - end - 1]}…{name[-end:]}"
