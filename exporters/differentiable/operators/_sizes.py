"""Sizes that a file's own numbers ask for: few numbers, and never more memory than a limit."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor

from compressor.core.errors import UnreadableModelError

MAX_NUMBERS = 1 << 28
"""The most numbers of one value whose size the file's numbers choose: one gigabyte in float32."""
_MOST_LISTED = 128  # two for each axis, and torch has no more than 64 axes


def listed(values: Tensor) -> list[int]:
    """The entries of a short integer tensor, such as a shape or a list of axes.

    Raises:
        ValueError: there are more of them than a shape can have.
    """
    if values.numel() > _MOST_LISTED:
        raise ValueError("a list that is too long for a shape")
    return [int(value) for value in values.reshape(-1).tolist()]


def bounded(sizes: Iterable[int]) -> tuple[int, ...]:
    """The same sizes, if a value of them may be made: a constant of a few bytes can ask for any size.

    Raises:
        UnreadableModelError: it would be larger than the limit.
        ValueError: a size is negative.
    """
    wanted = tuple(sizes)
    if any(size < 0 for size in wanted):
        raise ValueError("a negative size")
    if math.prod(wanted) > MAX_NUMBERS:
        raise UnreadableModelError(f"the model asks for a value of more than {MAX_NUMBERS:,} numbers.")
    return wanted
