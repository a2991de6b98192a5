"""What every member of every room must have, and what the documentation must say; found by walking, not by listing."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from compressor.core.registry import ALARMS, ATTACKS, DATASETS, METHODS, MODELS, Member, Room

ROOT = Path(__file__).parents[1]
ROOMS = (METHODS, MODELS, ATTACKS, DATASETS, ALARMS)
MEMBERS = [
    pytest.param(room, member, id=f"{room.kind}-{name}") for room in ROOMS for name, member in room.members().items()
]


@pytest.mark.parametrize(("room", "member"), MEMBERS)
def test_every_member_has_its_test_its_summary_and_its_object(room: Room, member: Member) -> None:
    folder = ROOT.joinpath("tests", *room.package.split(".")[1:])
    assert (folder / f"test_{member.path.stem}.py").is_file(), "a member without a test of its own"
    assert 10 < len(member.summary) <= 120, "the first docstring line is what `compress list` shows"
    assert room.get(member.name) is getattr(member.load(), room.attribute)


def test_methods_declare_what_the_loop_needs() -> None:
    for name in METHODS.members():
        method = METHODS.get(name)
        assert method.teacher_at in ("nothing", "natural", "adversarial")
        assert method.attack_mode in ("eval", "train", "none")
        assert method().labels_in in ("nothing", "attack", "loss")
        assert method.selects_by in ("robust", "clean")
        assert method() == method(), "a frozen dataclass whose defaults make it"


@pytest.fixture
def generate() -> Any:
    """The module that writes pages from the code."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_page_says_what_the_code_says(generate: Any) -> None:
    """A new member may be missing until `make reference` runs, so that adding one touches no page; nothing else may."""
    page, generated = generate.TARGET.read_text(encoding="utf-8").splitlines(), generate.reference().splitlines()
    rows = {f"| `{name}` |" for room in ROOMS for name in room.members()}
    missing = [line for line in generated if line not in page]
    assert all(any(line.startswith(row) for row in rows) for line in missing), "run: make reference"
    assert page == [line for line in generated if line not in missing], "run: make reference"


def test_the_schema_of_a_claim_is_what_the_reader_checks(generate: Any) -> None:
    assert generate.SCHEMA.read_text(encoding="utf-8") == generate.claim_schema(), "run: make reference"
