"""``compress list``: what there is to choose from. Reads names and first lines only; imports no engine."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options.shared_options import OutputOptions
from compressor.core.registry import ALARMS, ATTACKS, DATASETS, METHODS, MODELS, Room, unknown_name
from compressor.evaluation.suites import SUITES
from compressor.runs.recipe_files import recipe_files, recipe_summary

_ROOMS: dict[str, Room] = {
    "methods": METHODS,
    "models": MODELS,
    "attacks": ATTACKS,
    "datasets": DATASETS,
    "alarms": ALARMS,
}
_KINDS = (*_ROOMS, "recipes", "suites")


def list_members(
    printing: OutputOptions,
    kind: Annotated[str | None, typer.Argument(metavar="KIND", help=f"One of: {', '.join(_KINDS)}.")] = None,
) -> int:
    """Show the methods, models, attacks, datasets, alarms, recipes and suites."""
    if kind is not None and kind not in _KINDS:
        raise unknown_name("kind of thing to list", kind, list(_KINDS))
    with printing.open() as output:
        items = []
        for name in [kind] if kind else _KINDS:
            found = _items(name)
            output.table(name.capitalize(), ["name", "summary"], found, figures=False)
            items += [{"kind": name, "name": item, "summary": summary} for item, summary in found]
        output.json("compress.list/1", {"items": items})
    return 0


def _items(kind: str) -> list[tuple[str, str]]:
    if kind == "recipes":
        return [(path.stem, recipe_summary(path)) for path in recipe_files()]
    if kind == "suites":
        return [(str(suite), suite.summary) for suite in SUITES]
    return [(name, member.summary) for name, member in _ROOMS[kind].members().items()]
