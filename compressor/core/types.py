"""The small frozen values that every room speaks in. No torch here: the command line reads this for ``--help``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from compressor.core.errors import UsageError

Norm = Literal["Linf", "L2"]
_LARGEST: dict[str, int] = {"Linf": 1, "L2": 1000}


@dataclass(frozen=True)
class Threat:
    """The perturbations an attacker may use: all ``x'`` in [0, 1] with ``||x' - x||_norm <= eps``.

    ``eps`` keeps the text it was given as (``"8/255"``, ``"0.1"``), because that is what claims record and people
    compare; ``radius`` is its value, in units of the pixel range [0, 1].
    """

    norm: Norm = "Linf"
    eps: str = "8/255"

    def __post_init__(self) -> None:
        if self.norm not in ("Linf", "L2"):
            raise UsageError(f"the norm {self.norm!r} is not known.", "Use Linf or L2.")
        parse_eps(self.eps, largest=_LARGEST[self.norm])

    @property
    def radius(self) -> float:
        """``eps`` as a float, in units of the pixel range [0, 1]."""
        return float(parse_eps(self.eps, largest=_LARGEST[self.norm]))

    def __str__(self) -> str:
        return f"{self.norm} {self.eps}"


def parse_eps(text: str, largest: int = 1) -> Fraction:
    """Read a perturbation size such as ``"8/255"`` or ``"0.1"``, in units of the pixel range.

    Raises:
        UsageError: not a number, not positive, or larger than ``largest``.
    """
    hint = "Write it as a fraction of the pixel range, such as 8/255 or 0.03."
    # No exponent: 1e-999999999 is short to write and endless to compute, and files of unknown origin hold eps too.
    if re.fullmatch(r"-?\d{1,9}(\.\d{1,15})?(/\d{1,9})?", text, re.ASCII) is None:
        raise UsageError(f"eps {text[:40]!r} is not a number.", hint)
    try:
        value = Fraction(text.partition("/")[0]) / Fraction(text.partition("/")[2] or 1)
    except ZeroDivisionError:
        raise UsageError(f"eps {text!r} is not a number.", hint) from None
    if not 0 < value <= largest:
        raise UsageError(f"eps {text!r} is not above 0 and at most {largest}.", hint)
    return value


def eps_text(eps: str | float) -> str:
    """Write a perturbation size as claims record it: text as it is, ``8/255`` for the number 8/255.

    Args:
        eps: text such as ``"8/255"``, or a number in units of the pixel range.

    Raises:
        UsageError: it is not finite.
    """
    if isinstance(eps, str):
        return eps
    if not math.isfinite(eps):
        raise UsageError(f"eps {eps} is not a number.", "Write it as a fraction of the pixel range, such as 8/255.")
    steps = _decimal(255 * eps, 9)
    for text, value in ((_decimal(eps, 6), Fraction(_decimal(eps, 6))), (f"{steps}/255", Fraction(steps) / 255)):
        if float(value) == eps:
            return text
    return _decimal(eps, 15)


def _decimal(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".rstrip("0").rstrip(".")


@dataclass(frozen=True)
class DatasetSpec:
    """What ``--data`` names: a registered dataset and, after the first colon, its argument."""

    name: str
    argument: str = ""

    @classmethod
    def parse(cls, text: str) -> DatasetSpec:
        """Split ``"imagefolder:DIR"`` at the first colon."""
        name, _, argument = text.partition(":")
        return cls(name, argument)

    def __str__(self) -> str:
        return f"{self.name}:{self.argument}" if self.argument else self.name


@dataclass(frozen=True)
class Normalization:
    """Per-channel ``(x - mean) / std`` that a classifier applies to its [0, 1] input. ``None`` elsewhere means raw."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class ModelSpec:
    """Everything needed to build a classifier that a state dict then fits.

    Attributes:
        name: the registry's name with its numbers, such as ``wideresnet-34-10`` or ``mobilenetv2-0.25``.
        classes: how many logits.
        image_size: the side of its square input, in pixels.
        normalization: applied inside the model; ``None`` means it takes raw [0, 1].
        activation: ``relu`` or ``silu``; most families know only ``relu``.
        source_sha256: of the user's own source file, where the name is ``python:...``; ``None`` while it is not known.
    """

    name: str
    classes: int
    image_size: int = 32
    normalization: Normalization | None = None
    activation: Literal["relu", "silu"] = "relu"
    source_sha256: str | None = None
