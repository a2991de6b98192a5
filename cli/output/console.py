"""One place for all that is printed: results on stdout, everything else on stderr, one JSON object for machines."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from compressor.system import launch

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

_PLAIN_EVERY_SECONDS = 60.0
_TERMINAL_EVERY_SECONDS = 0.1
# What may happen to one process alone; any other error every process has, and the first one says.
_OF_ONE_PROCESS = ("internal", "memory")


class Output:
    """Where a command says things. It is the engine's ``Reporter`` too."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        # Of several processes the first speaks: the others would say the same.
        self._mute = launch.rank() != 0
        self.as_json = as_json or self._mute
        self.quiet = quiet or self._mute
        self._err = _console(stderr=True)
        self._out = _console(stderr=False)
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._pace = _Pace()

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_progress()

    # The engine's Reporter.

    def phase(self, title: str) -> None:
        """Begin a stage: a heading on a terminal, a line elsewhere."""
        self._end_progress()
        self._pace = _Pace()
        if not self.quiet:
            self._say(f"[bold]{_escape(title)}[/bold]")

    def advance(self, done: int, total: int, detail: str = "") -> None:
        """Show progress: a moving bar on a terminal, a line a minute elsewhere."""
        if self.quiet:
            return
        pace = self._pace
        pace.update(done)
        if self._err.is_terminal:
            if pace.due(_TERMINAL_EVERY_SECONDS) or done >= total:
                self._bar(done, total, detail)
        elif pace.due(_PLAIN_EVERY_SECONDS):
            eta = f", {_duration((total - done) / pace.rate)} left" if pace.rate else ""
            self._say(_escape(f"  {done:,}/{total:,}{eta}, {pace.rate:.1f}/s  {detail}"))

    def note(self, text: str) -> None:
        """Say a fact."""
        if not self.quiet:
            self._say(_escape(f"  {text}"))

    def warn(self, text: str) -> None:
        """Warn; also under ``--quiet``."""
        if self._mute:
            return
        self._say(f"[yellow]warning:[/yellow] {_escape(text)}")

    # Results.

    def table(
        self,
        title: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        figures: bool = True,
        labels: int = 1,
    ) -> None:
        """Print a result as a table; with ``figures``, all columns after the labels are aligned to the right."""
        if self.as_json:
            return
        from rich import box
        from rich.table import Table

        self._end_progress()
        # The title is a line of its own: a table would wrap it to its own width.
        self._out.print(f"\n[bold]{_escape(title)}[/bold]", soft_wrap=True)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for number, column in enumerate(columns):
            table.add_column(column, justify="right" if figures and number >= labels else "left", overflow="fold")
        for row in rows:
            table.add_row(*(_escape(cell) for cell in row))
        self._out.print(table)

    def line(self, text: str = "", style: str = "") -> None:
        """Print a line of the result."""
        if not self.as_json:
            self._end_progress()
            self._out.print(_escape(text), style=style or None, soft_wrap=True)

    def entry(self, head: str, text: str) -> None:
        """Print a line of the result that a terminal wraps to the right of its head; elsewhere it stays one line."""
        if self.as_json or not self._out.is_terminal:
            self.line(head + text)
            return
        from rich.table import Table

        self._end_progress()
        grid = Table.grid()
        grid.add_column(width=len(head), no_wrap=True)
        grid.add_column(overflow="fold")
        grid.add_row(_escape(head), _escape(text))
        self._out.print(grid)

    def text(self, text: str) -> None:
        """Print a result that is laid out already, byte for byte."""
        if not self.as_json:
            self._end_progress()
            sys.stdout.write(text)

    def json(self, schema: str, fields: Mapping[str, Any]) -> None:
        """Print the one JSON object, if it was asked for."""
        if self.as_json and not self._mute:
            self._end_progress()
            sys.stdout.write(json.dumps({"schema": schema, **fields}, allow_nan=False, ensure_ascii=False) + "\n")
            sys.stdout.flush()

    def error(self, code: str, message: str, hint: str, exit_code: int) -> None:
        """Print an error: a sentence and a hint, or the JSON error object."""
        if self._mute and code not in _OF_ONE_PROCESS:
            return
        self._end_progress()
        self._say(f"[bold red]error:[/bold red] {_escape(message)}")
        if hint:
            self._say(_escape(f"  {hint}"))
        if self.as_json and not self._mute:
            body = {"error": {"code": code, "message": message, "hint": hint}, "exit_code": exit_code}
            sys.stdout.write(json.dumps(body, ensure_ascii=False) + "\n")
            sys.stdout.flush()

    def _say(self, markup: str) -> None:
        self._err.print(markup, soft_wrap=True)

    def _bar(self, done: int, total: int, detail: str) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        if self._progress is None:
            self._progress = Progress(
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[eta]} left, {task.fields[rate]:.1f}/s  {task.fields[detail]}"),
                console=self._err,
                transient=True,
                auto_refresh=False,
            )
            self._progress.start()
            self._task = self._progress.add_task("", total=total, eta="?", rate=0.0, detail="")
        if self._task is not None:
            rate = self._pace.rate
            eta = _duration((total - done) / rate) if rate else "?"
            self._progress.update(
                self._task, completed=done, total=total, eta=eta, rate=rate, detail=_escape(detail), refresh=True
            )

    def _end_progress(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
            self._task = None


class _Pace:
    """Units a second since the first report of a stage, and whether it is time to show something."""

    def __init__(self) -> None:
        self.rate = 0.0
        self._first: tuple[float, int] | None = None
        self._last = 0
        self._shown = time.monotonic()

    def update(self, done: int) -> None:
        now = time.monotonic()
        if self._first is None or done < self._last:  # the next attack of a suite starts from nothing again
            self._first, self.rate = (now, done), 0.0
        elif now > self._first[0]:
            self.rate = (done - self._first[1]) / (now - self._first[0])
        self._last = done

    def due(self, seconds: float) -> bool:
        now = time.monotonic()
        if now - self._shown < seconds:
            return False
        self._shown = now
        return True


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    # Away from a terminal nothing is wrapped or coloured: a log's reader, often a program, decides about lines.
    stream = sys.stderr if stderr else sys.stdout
    plain = not stream.isatty()
    return Console(
        stderr=stderr,
        highlight=False,
        no_color=plain or bool(os.environ.get("NO_COLOR")),
        force_terminal=False if plain else None,
        width=200 if plain else None,
        emoji=False,
    )


def _escape(text: str) -> str:
    from rich.markup import escape

    # Names from files and exceptions may hold control characters; a terminal must not obey them.
    return escape("".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
