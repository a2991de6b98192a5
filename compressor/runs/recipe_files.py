"""The recipes that come along with the project: TOML files beside the code, or in the working folder."""

from __future__ import annotations

import sys
from pathlib import Path

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
