"""Recipes as TOML files: those that come along with the project, reading one, and writing one."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compressor.core.errors import MissingInputError, UsageError
from compressor.core.registry import unknown_name


def recipe_files() -> list[Path]:
    """All recipe files, by name; those of the working folder come before those of the checkout."""
    found: dict[str, Path] = {}
    installed = Path(sys.prefix) / "share" / "compress" / "recipes"
    for folder in (Path("recipes"), Path(__file__).parents[2] / "recipes", installed):
        for path in sorted(folder.glob("*.toml")):
            found.setdefault(path.stem, path)
    return [found[name] for name in sorted(found)]


def resolve_recipe_file(given: Path | None) -> Path | None:
    """What ``--recipe`` means: a file, or the name of a recipe that comes along."""
    if given is None or given.exists():
        return given
    named = {path.stem: path for path in recipe_files()}
    if str(given) in named:
        return named[str(given)]
    if given.suffix:
        return given  # a file that is not there: reading it says so
    raise unknown_name("recipe", str(given), list(named))


def recipe_summary(path: Path) -> str:
    """The first comment line of a recipe."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip()


def read_recipe_file(path: Path) -> dict[str, Any]:
    """Read a TOML recipe; one setting a line, the method's own under ``[method_settings]``."""
    if not path.is_file():
        raise MissingInputError(
            f"the recipe {path} is not a file.", "`compress list recipes` shows those that come along."
        )
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the recipe {path} is not valid TOML: {error}.", "Compare it with recipes/*.toml.") from None
    # A run's own recipe.toml is a recipe too; its inputs are what it was run on, not what is asked for.
    return {name: value for name, value in values.items() if name != "inputs"}


def to_toml(values: Mapping[str, Any]) -> str:
    """Plain values as TOML: scalars and lists first, then tables; ``None`` is left out."""
    tables = {k: v for k, v in values.items() if isinstance(v, Mapping)}
    lines = [f"{k} = {_toml_value(v)}" for k, v in values.items() if k not in tables and v is not None]
    for name, table in tables.items():
        rows = (f"{_toml_value(k)} = {_toml_value(v)}" for k, v in table.items() if v is not None)
        lines += ["", f"[{name}]", *rows]
    return "\n".join(lines) + "\n"


def _toml_value(value: Any) -> str:
    """JSON's spelling, which is TOML's too but for DEL and for surrogate pairs (so nothing beyond ASCII is escaped)."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
