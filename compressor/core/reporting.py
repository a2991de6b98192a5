"""What the engine reports to its caller: phases, progress, notes and warnings. It prints nothing itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

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


EventKind = Literal["phase", "progress", "note", "warning"]


@dataclass(frozen=True)
class Event:
    """What ``on_progress`` is called with.

    Attributes:
        kind: ``phase`` begins a stage; ``progress`` says how far the stage is; ``note`` states a fact; ``warning``
            names something that may make the result worse than expected.
        text: the stage's title, its current figures, the fact or the warning.
        done: units that the stage has done; 0 unless ``kind`` is ``progress``.
        total: units that the stage has in all; 0 unless ``kind`` is ``progress``.
    """

    kind: EventKind
    text: str
    done: int = 0
    total: int = 0


OnEvent = Callable[[Event], None]


class EventReporter:
    """A reporter that calls a function with each event; without a function it says nothing."""

    def __init__(self, on_progress: OnEvent | None) -> None:
        self._tell: OnEvent = on_progress or (lambda event: None)

    def phase(self, title: str) -> None:
        """Tell that a stage begins."""
        self._tell(Event("phase", title))

    def advance(self, done: int, total: int, detail: str = "") -> None:
        """Tell how far the stage is."""
        self._tell(Event("progress", detail, done, total))

    def note(self, text: str) -> None:
        """Tell a fact."""
        self._tell(Event("note", text))

    def warn(self, text: str) -> None:
        """Tell a warning."""
        self._tell(Event("warning", text))
