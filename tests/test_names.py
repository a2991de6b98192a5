"""Names and words: one name for one thing, and the field's words in everything that a person reads."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("compressor", "exporters", "cli")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

SHARED_NAMES = {
    "BasicBlock": "two published architectures, each with the block's name in its own release",
    "main": "two programs: the console script and the process that examines a file",
    "open_dataset": "the Python interface has the name of the function that it calls",
    "train": "the Python interface has the name of the function that it calls",
    "ascend": "the Python interface has the name of the function that it calls",
}
"""Names that two modules may define, with the reason."""

METAPHORS = {
    r"whoever|whomever": "name the reader, the user, the process, the verifier",
    r"standing|stood": "an image is robust, or robust so far",
    r"images?\s+(that\s+)?(still\s+)?stands?": "an image is robust, or robust so far",
    r"fells?|felled|fallen": "an image is misclassified or broken; an attack breaks it",
    r"images?\s+(that\s+)?falls?": "an image is misclassified or broken",
    r"survive[sd]?|survivors?|withst(and|ands|ood)": "an image is robust",
    r"blind(ed|ly|s|ness)?": "attacks fail because of masked gradients",
    r"rang|rung|rings?|ringing": "an alarm is raised",
    r"climb(s|ed|ing)?": "an attack maximises a loss, or follows a gradient",
    r"confess(es|ed|ion)?": "a claim records alarms",
    r"(cannot|can't) be had|(is|are) had": "cannot be computed",
    r"all but nothing": "almost nothing",
    r"(it|this) alone broke|broken by (it|this) alone": "unique successes",
}
"""What no text says, and what it says instead (see the naming table of the project)."""

FORMAT_FIELDS = {"standing", "fell_to"}
"""Fields of files that earlier versions wrote: they keep their names."""

BANNED = re.compile(
    "|".join(rf"(?P<m{number}>\b(?:{words})\b)" for number, words in enumerate(METAPHORS)), re.IGNORECASE
)
_CODE_SPAN = re.compile(r"`[^`]*`|\]\([^)]*\)")


def metaphors(text: str) -> Iterator[str]:
    """Each banned phrase of a text, with its line and what to say instead."""
    for match in BANNED.finditer(text):
        number = int(str(match.lastgroup)[1:])
        line = text.count("\n", 0, match.start()) + 1
        yield f"line {line}: {match.group()!r}; write: {list(METAPHORS.values())[number]}"


def _blank(span: re.Match[str]) -> str:
    return "\n" * span.group().count("\n")


def texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every string of a module with its line: docstrings, help, messages."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in FORMAT_FIELDS:
            yield node.lineno, node.value


def public_definitions() -> dict[str, list[str]]:
    """Each public class and function at the top of a module, by name, with the modules that define it.

    A command has the name of the function that it calls. The overloads of a function are one definition.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for path in MODULES:
        home = str(path.relative_to(ROOT))
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            if home != f"cli/commands/{node.name}.py" and home not in found[node.name]:
                found[node.name].append(home)
    return found


def test_no_two_things_have_one_name() -> None:
    twice = {name: homes for name, homes in public_definitions().items() if len(homes) > 1}
    assert not {name: homes for name, homes in twice.items() if name not in SHARED_NAMES}, "say which is which"


def test_shared_names_are_few_and_needed() -> None:
    """An entry whose reason is gone would let the next duplicate pass."""
    found = public_definitions()
    assert [name for name in SHARED_NAMES if len(found.get(name, [])) < 2] == []


def test_strings_of_the_code_use_the_words_of_the_field() -> None:
    """Docstrings, help and messages: all of them are strings."""
    found = [
        f"{path.relative_to(ROOT)}, string at line {start}, {problem}"
        for path in MODULES
        for start, text in texts(ast.parse(path.read_text(encoding="utf-8")))
        for problem in metaphors(text)
    ]
    assert found == []


def names(tree: ast.Module) -> set[str]:
    """Every name that a module defines or uses."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
    return found


def test_names_of_the_code_use_the_words_of_the_field() -> None:
    """Parameters, fields and variables too: a metaphor in a name comes back in its documentation."""
    found = [
        f"{path.relative_to(ROOT)}, {name}: {problem}"
        for path in MODULES
        for name in sorted(names(ast.parse(path.read_text(encoding="utf-8"))))
        for problem in metaphors(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).replace("_", " "))
    ]
    assert found == []


def test_pages_use_the_words_of_the_field() -> None:
    """Names in code spans and link targets are no prose."""
    found = [
        f"{path.relative_to(ROOT)}, {problem}"
        for path in PAGES
        for problem in metaphors(_CODE_SPAN.sub(_blank, path.read_text(encoding="utf-8")))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("attack N standing images", 1),
        ("the alarm rang, and another rings", 2),
        ("Images that stand by a tie\nand images\nthat fall", 2),
        ("an understanding of the string", 0),
        ("the loss falls, and the claim stands beside the model", 0),
        ("Whoever reads this is blinded", 2),
    ],
)
def test_the_search_finds_metaphors_and_nothing_else(text: str, found: int) -> None:
    assert len(list(metaphors(text))) == found
