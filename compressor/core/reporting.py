"""What the engine reports to its caller: phases, progress, notes and warnings. It prints nothing itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

OnProgress = Callable[[str, int, int], None]
"""Receives what is being done, how much of it is done, and how much there is."""


class Reporter(Protocol):
    """Receives what a person would want to know while waiting; must not change what is computed."""

    def phase(self, title: str) -> None:
        """A new stage begins."""
        ...

    def advance(self, done: int, total: int, detail: str = "") -> None:
        """The stage has done ``done`` of ``total`` units; ``detail`` holds its current figures."""
        ...

    def note(self, text: str) -> None:
        """A fact worth a line."""
        ...

    def warn(self, text: str) -> None:
        """Something that may make the result worse than the user expects."""
        ...


class SilentReporter:
    """A reporter that says nothing, for library use and tests."""

    def phase(self, title: str) -> None:
        """Ignore it."""

    def advance(self, done: int, total: int, detail: str = "") -> None:
        """Ignore it."""

    def note(self, text: str) -> None:
        """Ignore it."""

    def warn(self, text: str) -> None:
        """Ignore it."""
