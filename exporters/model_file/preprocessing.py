"""What is done to images before a file sees them, where the file does not say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from compressor.core.errors import UsageError
from compressor.core.types import Normalization


@dataclass(frozen=True)
class Preprocessing:
    """What a file does not say of its input images, and a program that runs it must know.

    Attributes:
        normalization: ``(x - mean) / std`` of images in [0, 1], done outside the file; one number for all channels, or
            one for each. ``None`` for a file that takes [0, 1].
        image_size: height and width in pixels, of a file that leaves them open.
    """

    normalization: Normalization | None = None
    image_size: int | None = None


def parse_normalization(
    mean: str | float | Sequence[float] | None, std: str | float | Sequence[float] | None
) -> Normalization | None:
    """Read ``"0.485,0.456,0.406"`` and its like, or the numbers: means default to 0, standard deviations to 1.

    A file that takes pixels from 0 to 255 has ``std = 0.00392156862745098``, 1/255.

    Args:
        mean: text, one number for all channels, or one number for each.
        std: likewise.

    Raises:
        UsageError: not numbers, not as many of one as of the other, or a deviation that is not above 0.
    """
    if mean is None and std is None:
        return None
    means, deviations = _numbers("--mean", mean), _numbers("--std", std)
    count = max(len(means), len(deviations))
    means, deviations = means or (0.0,) * count, deviations or (1.0,) * count
    if len(means) != len(deviations):
        raise UsageError(
            f"--mean has {len(means)} numbers and --std {len(deviations)}.", "Give as many of one as of the other."
        )
    if min(deviations) <= 0:
        raise UsageError("a standard deviation is not above 0.", "Give --std numbers above 0.")
    return Normalization(means, deviations)


def _numbers(option: str, given: str | float | Sequence[float] | None) -> tuple[float, ...]:
    if given is None:
        return ()
    words = given.split(",") if isinstance(given, str) else [given] if isinstance(given, int | float) else given
    try:
        numbers = tuple(float(word) for word in words)
    except (TypeError, ValueError):
        numbers = (math.nan,)
    if not all(map(math.isfinite, numbers)):
        raise UsageError(f"{option} {str(given)[:60]!r} is not numbers.", f"Write {option} 0.485,0.456,0.406.")
    return numbers
