"""The commands by name, each imported when it is called: ``compress --help`` shows this table and imports none."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperGroup


@dataclass(frozen=True)
class Listed:
    """A command before it is imported.

    Attributes:
        function: the function in the module ``cli.NAME`` that runs it.
        summary: the first line of the function's docstring; a test holds the two together.
    """

    function: str
    summary: str


COMMANDS = {
    "distill": Listed(
        "distill", "Distil a robust teacher into a small student, attack it, export it, and verify the exported file."
    ),
    "train": Listed("train", "Train a model without a teacher: sat, trades, mart or natural."),
    "attack": Listed(
        "attack", "Attack a checkpoint or an ONNX file and print one table, each accuracy with its 95 % interval."
    ),
    "export": Listed(
        "export",
        "Write verified ONNX files: parity with the checkpoint, attacks on each file itself, claim and evidence.",
    ),
    "verify": Listed(
        "verify",
        "Check an exported file's claim with fresh attacks: 0 holds, 1 violated, 2 wrong usage, 3 could not decide.",
    ),
    "manifest": Listed(
        "manifest",
        "Write the digests of a dataset's test images, which `compress verify --manifest` takes in place of the data.",
    ),
    "inspect": Listed("inspect", "Show what a checkpoint or an ONNX file is, and what it says of itself."),
    "compare": Listed(
        "compare", "Lay finished runs side by side: best and last checkpoint, every attack, over seeds, with tests."
    ),
    "cache": Listed(
        "cache", "List, verify or prune what is kept between runs: teachers' answers and decoded pictures."
    ),
    "doctor": Listed("doctor", "Show versions, devices and providers, and what is missing."),
    "demo": Listed(
        "demo", "Train a teacher on digits, distil it, and verify the exported file; started again, it goes on."
    ),
    "list": Listed("list_members", "Show the methods, models, attacks, datasets, alarms, recipes and suites."),
}


def load_command(name: str) -> Any:
    """Import the command ``name`` and return it as Typer's command."""
    from cli.options.command import Command
    from cli.options.shared_options import OutputOptions, with_options

    function = getattr(importlib.import_module(f"cli.commands.{name}"), COMMANDS[name].function)
    function = with_options(OutputOptions, "printing")(function)
    single = typer.Typer(add_completion=False, rich_markup_mode="rich")
    single.command(name, cls=Command)(function)
    return typer.main.get_command(single)


class _Commands(MutableMapping[str, Any]):
    """The commands as Typer's group wants them: the names are there at once, a command once it is asked for."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            if name not in COMMANDS:
                raise KeyError(name)
            self._loaded[name] = load_command(name)
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class LazyGroup(TyperGroup):
    """``compress`` itself: its help names all commands and imports none."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _Commands()

    def list_commands(self, ctx: Any) -> list[str]:
        """The names in the order of the table."""
        return list(COMMANDS)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write plain text: rich's boxes cost more time than everything else that this help needs."""
        super(TyperGroup, self).format_help(ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a line or two for each command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, listed.summary) for name, listed in COMMANDS.items()])
