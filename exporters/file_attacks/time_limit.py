"""``--time-limit``: when to stop. Asked between batches, so that what is begun is finished."""

from __future__ import annotations

from time import monotonic


class Deadline:
    """A moment after which nothing new is begun.

    Args:
        seconds: from now; None for never.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._end = None if seconds is None else monotonic() + seconds

    def is_over(self) -> bool:
        """Whether the moment has passed."""
        return self._end is not None and monotonic() >= self._end
