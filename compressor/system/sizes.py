"""Sizes as people write them: decimal units, ``8GB`` is 8,000,000,000 bytes."""

from __future__ import annotations

import re
from decimal import Decimal

from compressor.core.errors import UsageError

_UNITS = ("B", "kB", "MB", "GB", "TB")
_SIZE = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([kMGT]?B)?\s*", re.IGNORECASE | re.ASCII)


def parse_size(text: str) -> int:
    """Bytes of a size such as ``500MB``, ``1.5 GB`` or ``4096``; a number alone is bytes, and case does not matter.

    Raises:
        UsageError: it is not a size.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise UsageError(f"{text[:80]!r} is not a size.", "Write a number and B, kB, MB, GB or TB: 500MB, 8GB; or 0.")
    number, unit = match.groups()
    power = next(i for i, name in enumerate(_UNITS) if name.lower() == (unit or "B").lower())
    return int(Decimal(number) * 1000**power)


def format_size(size: int) -> str:
    """A size in the unit that gives it one to three digits before the point: ``162.0 MB``."""
    if size < 1000:
        return f"{size} B"
    power = 1
    # Compared after rounding, so that 999,960 is 1.0 MB and not 1000.0 kB.
    while round(size / 1000**power, 1) >= 1000 and power < len(_UNITS) - 1:
        power += 1
    return f"{size / 1000**power:.1f} {_UNITS[power]}"
