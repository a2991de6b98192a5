"""Finds a room's members: a file's name, underscores as hyphens, is its name on the command line.

Listing reads names and the first docstring line from the source, so ``compress list`` and ``--help`` import nothing;
a member's module is imported only when it is used.
"""

from __future__ import annotations

import ast
import difflib
import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from compressor.core.errors import MissingPackageError, UnknownNameError


@dataclass(frozen=True)
class Member:
    """One file of a room, not yet imported."""

    name: str
    module: str
    path: Path

    @property
    def summary(self) -> str:
        """The first line of the file's docstring."""
        docstring = ast.get_docstring(ast.parse(self.path.read_text(encoding="utf-8"))) or ""
        return docstring.partition("\n")[0]

    def load(self) -> ModuleType:
        """Import the member's module."""
        return importlib.import_module(self.module)


@dataclass(frozen=True)
class Room:
    """A package in which every public file is a member that exports one named object."""

    package: str
    kind: str
    attribute: str

    def members(self) -> dict[str, Member]:
        """All members by name, sorted; files that start with an underscore are not members."""
        folder = Path(__file__).parents[2].joinpath(*self.package.split("."))
        files = sorted(path for path in folder.glob("*.py") if not path.stem.startswith("_"))
        return {
            path.stem.replace("_", "-"): Member(path.stem.replace("_", "-"), f"{self.package}.{path.stem}", path)
            for path in files
        }

    def get(self, name: str) -> Any:
        """The object that the member ``name`` exports.

        Raises:
            UnknownNameError: no such member; near misses are suggested.
            MissingPackageError: its file needs a package that is not installed, as in the image that only verifies.
        """
        members = self.members()
        if name not in members:
            raise unknown_name(self.kind, name, list(members))
        try:
            return getattr(members[name].load(), self.attribute)
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package in ("", __name__.partition(".")[0]):
                raise  # a mistake of ours, not of the installation
            raise MissingPackageError(
                f"the {self.kind} {name} needs {package}, which is not installed.", f"pip install {package}"
            ) from error


def unknown_name(kind: str, name: str, known: list[str]) -> UnknownNameError:
    """The error for a name that does not exist, with near misses or the whole list as its hint."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(known)}."
    return UnknownNameError(f"there is no {kind} {name!r}.", hint)


MODELS = Room("compressor.models.families", "model", "FAMILY")
DATASETS = Room("compressor.data.sources", "dataset", "DATASET")
ATTACKS = Room("compressor.attacks", "attack", "ATTACK")
METHODS = Room("compressor.methods", "method", "METHOD")
ALARMS = Room("compressor.evaluation.alarms", "alarm", "CHECK")
