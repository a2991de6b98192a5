"""The radii of the curves: which by default, how the command line names them, how a figure writes them."""

from __future__ import annotations

from fractions import Fraction
from math import isfinite

from compressor.core.errors import UsageError
from compressor.core.types import Norm, Threat, parse_eps

NORMS: tuple[Norm, ...] = ("Linf", "L2")

_OF_EPS = (Fraction(0), Fraction(1, 4), Fraction(1, 2), Fraction(1), Fraction(2), Fraction(4))
_LINF = ("0", "2/255", "4/255", "8/255", "16/255", "32/255")
_L2 = (0.0, 0.125, 0.25, 0.5, 1.0, 2.0)
# What the L2 radii are for: CIFAR's 3 x 32 x 32 values. A larger image has room for a longer vector.
_L2_VALUES = 3 * 32 * 32
_DECIMALS = 15


def default_radii(threat: Threat, norm: Norm, values: int) -> tuple[str, ...]:
    """The radii of one norm's curve: multiples of the threat's own, or common ones for the other norm.

    ``0, eps/4, eps/2, eps, 2 eps, 4 eps`` in the threat's norm; for L2 beside it, ``0, 1/8, 1/4, 1/2, 1, 2`` times
    ``sqrt(CHW / 3072)``; for Linf beside it, ``0, 2, 4, 8, 16, 32`` in 1/255.

    Args:
        threat: what the evaluation searched.
        norm: of the curve.
        values: CHW, how many numbers an image has.

    Returns:
        Text that ``Threat`` takes, ``"0"`` first.
    """
    if norm == threat.norm:
        largest = 1 if norm == "Linf" else 1000
        eps = parse_eps(threat.eps, largest)
        return tuple(dict.fromkeys(_text(min(eps * factor, Fraction(largest)), threat.eps) for factor in _OF_EPS))
    if norm == "Linf":
        return _LINF
    return tuple(f"{radius * (values / _L2_VALUES) ** 0.5:.4g}" for radius in _L2)


def parse_radii(text: str, norm: Norm) -> tuple[str, ...]:
    """The radii that ``--curve`` names, such as ``0,2/255,8/255``, in rising order.

    Raises:
        UsageError: one of them is no radius, or there is none above 0.
    """
    found: dict[Fraction, str] = {}
    for word in (word.strip() for word in text.split(",")):
        radius = Fraction(0) if word == "0" else parse_eps(Threat(norm, word).eps, 1000)
        found.setdefault(radius, word)
    if max(found) == 0:
        raise UsageError("--curve names no radius above 0.", "Write several, such as 0,2/255,4/255,8/255.")
    return tuple(found[radius] for radius in sorted(found))


def radius_value(radius: str) -> float:
    """A radius as a number, in units of the pixel range."""
    return 0.0 if radius == "0" else float(parse_eps(radius, 1000))


def axis_label(radius: float, norm: Norm) -> str:
    """A radius as an axis writes it: Linf in 1/255, L2 as it is."""
    return f"{255 * radius:.3g}" if norm == "Linf" else f"{radius:.3g}"


def format_length(length: float, norm: Norm) -> str:
    """A length as a sentence writes it: ``7.31/255`` or ``0.412``."""
    if not isfinite(length):
        return "beyond what was found"
    return f"{255 * length:.2f}/255" if norm == "Linf" else f"{length:.3f}"


def axis_unit(norm: Norm) -> str:
    """What an axis in this norm says of its unit."""
    return "L∞ radius, in 1/255" if norm == "Linf" else "L2 radius, of pixels in [0, 1]"


def format_threat(threat: Threat) -> str:
    """A threat as titles write it: ``L∞ 8/255``."""
    return f"{'L∞' if threat.norm == 'Linf' else 'L2'} {threat.eps}"


def _text(radius: Fraction, like: str) -> str:
    """A radius written as the threat's own is: ``n/255`` where that is, else a decimal."""
    if radius == 0:
        return "0"
    steps = radius * 255
    if like.endswith("/255") and (steps * 1000).denominator == 1:
        return f"{float(steps):g}/255"
    return f"{float(radius):.{_DECIMALS}f}".rstrip("0").rstrip(".")
