"""The recipes that come along with the project: TOML files beside the code, or in the folder one stands in."""

from __future__ import annotations

from pathlib import Path


def recipe_files() -> list[Path]:
    """All recipe files, by name; those of the working folder come before those of the checkout."""
    found: dict[str, Path] = {}
    for folder in (Path("recipes"), Path(__file__).parent.parent / "recipes"):
        for path in sorted(folder.glob("*.toml")):
            found.setdefault(path.stem, path)
    return [found[name] for name in sorted(found)]


def recipe_summary(path: Path) -> str:
    """The first comment line of a recipe."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip()
