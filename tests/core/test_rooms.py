"""The floors of the house where imports do not show them: rooms loaded by name, and members side by side.

``pyproject.toml`` lists the floors for import-linter, which reads imports alone.
"""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

from compressor.core import registry
from compressor.core.registry import Room

ROOT = Path(__file__).parents[2]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
FLOORS = {
    name: floor
    for contract in CONTRACTS
    if contract.get("containers") == ["compressor"]
    for floor, names in enumerate(contract["layers"])
    for name in names.split(" | ")
}
"""The rooms of the engine; 0 is the top floor."""

ROOMS = {name: value for name, value in vars(registry).items() if isinstance(value, Room)}
FOLDERS = (
    *(room.package for room in ROOMS.values()),
    "exporters.differentiable.operators",
    "cli.commands",
)
"""Folders in which every file is a member, except for those that start with an underscore: the folder shares them."""


def imported(source: str) -> set[str]:
    """Every dotted name that a module imports, in functions too; ``from a import b`` gives ``a`` and ``a.b``."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def rooms_loaded_by(source: str) -> set[str]:
    """The packages whose members a module can load by name."""
    names = {name.rpartition(".")[2] for name in imported(source) if name.startswith("compressor.core.registry.")}
    return {ROOMS[name].package for name in names if name in ROOMS}


def goes_down(file: Path, package: str) -> bool:
    """Whether ``package`` lies on a floor below that of the engine's ``file``, or in the same room."""
    room, target = file.relative_to(ROOT / "compressor").parts[0], package.split(".")[1]
    return room == target or FLOORS[room] < FLOORS[target]


def imported_members(member: Path, package: str) -> set[str]:
    """The other members of ``package`` that one of them imports."""
    others = {path.stem for path in member.parent.glob("[!_]*.py")} - {member.stem}
    names = imported(member.read_text(encoding="utf-8"))
    return {
        name for name in names if name.startswith(f"{package}.") and name.split(".")[package.count(".") + 1] in others
    }


LOADERS = [
    pytest.param(file, package, id=f"{file.relative_to(ROOT)}-{package}")
    for file in sorted((ROOT / "compressor").rglob("*.py"))
    for package in sorted(rooms_loaded_by(file.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize(("file", "package"), LOADERS)
def test_a_room_that_is_loaded_by_name_lies_below(file: Path, package: str) -> None:
    assert goes_down(file, package), f"{file.relative_to(ROOT)} loads members of {package}, which lies above it"


def test_every_room_of_members_is_loaded_by_somebody() -> None:
    """Else the test above would look for names that nobody uses any more."""
    assert {str(param.values[1]) for param in LOADERS} == {room.package for room in ROOMS.values()}


@pytest.mark.parametrize("package", FOLDERS)
def test_members_of_a_room_never_import_each_other(package: str) -> None:
    members = sorted(ROOT.joinpath(*package.split(".")).glob("[!_]*.py"))
    assert len(members) > 1, "a room without members"
    found = {member.stem: names for member in members if (names := imported_members(member, package))}
    assert not found, "what two members share belongs in a file that starts with an underscore"


def test_an_edge_that_runs_up_is_seen() -> None:
    source = "def f():\n    from compressor.core.registry import ATTACKS, unknown_name\n"
    assert rooms_loaded_by(source) == {"compressor.attacks"}
    assert not goes_down(ROOT / "compressor/numerics/losses.py", "compressor.attacks")
    assert not goes_down(ROOT / "compressor/models/classifier.py", "compressor.methods"), "beside is not below"
    assert goes_down(ROOT / "compressor/evaluation/suites.py", "compressor.attacks")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("from room.one import f", {"room.one"}),
        ("from room import one", {"room.one"}),
        ("import room.one", {"room.one"}),
        ("from room._shared import f", set()),
        ("from room.two import f", set()),
        ("from other.one import f", set()),
    ],
)
def test_a_member_that_imports_another_is_seen(tmp_path: Path, line: str, expected: set[str]) -> None:
    for name in ("one", "two", "_shared"):
        (tmp_path / f"{name}.py").write_text(f"{line}\n")
    found = imported_members(tmp_path / "two.py", "room")
    assert {name for name in found if name in {"room.one", "room.two"}} == expected
    assert bool(found) == bool(expected)
