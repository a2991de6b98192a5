"""Time that is counted: a budget for each part, and a total over all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence


class Clock:
    """Counts down from a number of seconds.

    Args:
        seconds: the budget.
        now: a monotonic clock in seconds.
    """

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._end = now() + seconds

    @property
    def left(self) -> float:
        """Seconds that are left; negative once the budget is spent."""
        return self._end - self._now()

    def has(self, seconds: float) -> bool:
        """Whether at least this many seconds are left."""
        return self.left >= seconds


def allot(name: str, budgets: Mapping[str, float], left: float, *, least: float) -> float:
    """Seconds that a part gets: its own budget, or what is left of the total where that is less.

    Args:
        name: of the part.
        budgets: seconds by part.
        left: seconds that are left of the total.
        least: a part that would get less than this many seconds is not started.

    Returns:
        Seconds, or 0 where the part is not to be started.
    """
    given = min(budgets[name], left)
    return given if given >= least else 0.0


def parse_budgets(words: Sequence[str], defaults: Mapping[str, float]) -> dict[str, float]:
    """Read ``part=seconds`` words over the defaults.

    Raises:
        ValueError: a word is not of that form, names no part, or has no number of seconds above zero.
    """
    budgets = dict(defaults)
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or name not in defaults:
            raise ValueError(f"{word!r} is not PART=SECONDS; the parts are {', '.join(defaults)}.")
        try:
            seconds = float(text)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds < float("inf"):
            raise ValueError(f"{word!r}: {text!r} is not a number of seconds above zero.")
        budgets[name] = seconds
    return budgets
