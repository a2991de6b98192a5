"""What the pages say of the code is true: links, paths, rooms and command lines."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest

from cli.command_table import COMMANDS, load_command
from compressor.api.training import TrainingSettings
from tests.support.pages import ROOT, anchors, code_spans, links, slug_of, split_code

PACKAGES = ("compressor", "exporters", "cli")
TOP = (*PACKAGES, "benchmarks", "docs", "docker", "recipes", "tests")
DOCS = sorted((ROOT / "docs").rglob("*.md"))
LINKED = [ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS, *sorted((ROOT / "benchmarks").rglob("*.md"))]
COMMAND_PAGES = [ROOT / "README.md", ROOT / "docs" / "python.md", *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
ARCHITECTURE = ROOT / "docs" / "architecture.md"

MADE_BY_THE_READER = {
    "compressor/methods/calm.py": "docs/extending.md",
    "tests/methods/test_calm.py": "docs/extending.md",
    "json.py": "docs/decisions/0026-a-process-for-the-file.md",
}
"""Paths of files that lie with a reader, or that the reader writes, and the page that names them."""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


# Links.


def what_is_wrong(page: Path, target: str) -> str | None:
    """Why a link of a page leads nowhere, or None."""
    parts = urlsplit(target)
    if parts.scheme or target.startswith("//"):
        is_address = parts.scheme in {"http", "https"} and re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.hostname or "")
        return None if is_address else "no http address"
    if target.startswith("/"):
        return "leads out of the repository"
    file = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not file.exists() or not file.is_relative_to(ROOT):
        return "there is no such file"
    if parts.fragment and (file.suffix != ".md" or unquote(parts.fragment) not in anchors(read(file))):
        return "the file has no such heading"
    return None


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    found = {target: problem for target in links(read(page)) if (problem := what_is_wrong(page, target))}
    assert found == {}


def test_there_are_links_to_check() -> None:
    """Else the search for them would be broken, and nothing else would say so."""
    targets = [target for page in LINKED for target in links(read(page))]
    assert len(targets) > 70
    assert sum("#" in target for target in targets) >= 5
    assert sum(target.startswith("https://") for target in targets) >= 3


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("docs/python.md", None),
        ("docs/", None),
        ("docs/verification.md#files-that-make-no-claim", None),
        ("https://arxiv.org/abs/2108.07969", None),
        ("docs/pyhton.md", "there is no such file"),
        ("../README.md", "there is no such file"),
        ("docs/verification.md#files-that-make-a-claim", "the file has no such heading"),
        ("#no-such-heading", "the file has no such heading"),
        ("/docs/python.md", "leads out of the repository"),
        ("https:///abs/2108.07969", "no http address"),
        ("htps://arxiv.org/", "no http address"),
    ],
)
def test_a_broken_link_is_seen(target: str, problem: str | None) -> None:
    assert what_is_wrong(ROOT / "README.md", target) == problem


def test_links_in_code_are_no_links() -> None:
    text = "[a](one.md) `[b](two.md)` ![c](three.png)\n\n    [d](four.md)\n\n```\n[e](five.md)\n```\n[f]: six.md\n"
    assert list(links(text)) == ["one.md", "three.png", "six.md"]


@pytest.mark.parametrize(
    ("heading", "slug"),
    [
        ("What 256 images can tell", "what-256-images-can-tell"),
        ("A file, and a verdict on it", "a-file-and-a-verdict-on-it"),
        ("`compress verify`: exit codes", "compress-verify-exit-codes"),
        ("Before & after", "before--after"),
        ("The [claim](file-formats.md#the-claim) of `a_b`", "the-claim-of-a_b"),
    ],
)
def test_slugs_are_those_of_github(heading: str, slug: str) -> None:
    assert slug_of(heading) == slug


def test_headings_of_one_name_are_numbered() -> None:
    assert anchors("# A\n## B c\n## B c\n```\n# D\n```\n") == {"a", "b-c", "b-c-1"}


# Paths.


def short_homes() -> list[Path]:
    return [ROOT, *(ROOT / package for package in PACKAGES)]


def rooms_of(package: str) -> set[str]:
    """The folders of a package on the disk."""
    return {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}


def named_paths(text: str) -> Iterator[str]:
    """The source files, and the folders of the repository, that a page names."""
    yield from re.findall(r"(?<![\w./:-])(?:[\w.-]+/)+[\w-]+\.py\b", text)
    rooms = {*TOP, *(room for package in PACKAGES for room in rooms_of(package))} - {"runs", "data"}
    for span in code_spans(text):
        is_path = re.fullmatch(r"\w+(/\w+)+/?|\w+/", span) and span.split("/")[0] in rooms
        if is_path or re.fullmatch(r"\w+\.py", span):
            yield span


def exists(path: str) -> bool:
    """Whether a path is there, from the root or from a package; a file's name alone may be anywhere in the code."""
    if "/" not in path:
        return any(next((ROOT / top).rglob(path), None) for top in TOP)
    return any((home / path).exists() or (home / f"{path}.py").exists() for home in short_homes())


@pytest.mark.parametrize("page", [ROOT / "README.md", *DOCS], ids=name_of)
def test_every_path_that_a_page_names_is_there(page: Path) -> None:
    missing = {path for path in named_paths(read(page)) if not exists(path)}
    assert missing - set(MADE_BY_THE_READER) == set()


def test_paths_that_the_reader_makes_are_named_and_not_there() -> None:
    """An entry whose reason is gone would hide the next wrong path."""
    for path, page in MADE_BY_THE_READER.items():
        assert path in named_paths(read(ROOT / page))
        assert not exists(path)


def test_a_path_that_is_not_there_is_seen() -> None:
    text = "See `compressor/team.py`, `exporters/presentation`, `training/loop.py`, `models/` and `feeder.py`."
    missing = {path for path in named_paths(text) if not exists(path)}
    assert missing == {"compressor/team.py", "exporters/presentation", "feeder.py"}


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or something that a module has; a room's name may stand for its package."""
    first, *rest = name.split(".")
    homes = (
        [first] if first in PACKAGES else [f"{package}.{first}" for package in PACKAGES if first in rooms_of(package)]
    )
    return any(_is_there(".".join([home, *rest])) for home in homes)


def _is_there(name: str) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (AttributeError, ModuleNotFoundError):
        return False
    return True


def dotted_names(text: str) -> set[str]:
    """The names such as `exporters.verify` or `frozen.Surrogate` in the code spans of a page."""
    rooms = {*PACKAGES, *(room for package in PACKAGES for room in rooms_of(package))}
    spans = {span.partition("(")[0] for span in code_spans(text)}
    return {s for s in spans if re.fullmatch(r"[a-z]\w*(\.[A-Za-z_]\w*)+", s) and s.split(".")[0] in rooms}


@pytest.mark.parametrize("page", [ROOT / "README.md", *DOCS], ids=name_of)
def test_every_dotted_name_of_the_code_is_there(page: Path) -> None:
    names = {name for name in dotted_names(read(page)) if not name.endswith((".py", ".csv", ".json", ".sig"))}
    assert {name for name in names if not resolves(name)} == set()


def test_a_dotted_name_that_is_not_there_is_seen() -> None:
    names = ("compressor.attacks.apgd_ce", "frozen.Surrogate", "exporters.verified", "compressor.team")
    assert [resolves(name) for name in names] == [True, True, False, False]


def is_defined(name: str) -> bool:
    """Whether the code has a dotted name, or a class of a plain one."""
    if "." in name:
        return resolves(name)
    definition = re.compile(rf"^class {name}\b", re.MULTILINE)
    return any(definition.search(read(path)) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def test_renamed_names_of_the_code_are_gone_and_there() -> None:
    """The rows for Python in the table of the changes: no old name is left, and every new one exists."""
    rows = re.findall(r"^\| Python \| (.*) \| (.*) \|$", read(ROOT / "CHANGELOG.md"), re.MULTILINE)
    assert len(rows) > 5
    old, new = ([name.partition("(")[0] for row in rows for name in code_spans(row[side])] for side in (0, 1))
    assert [name for name in old if is_defined(name)] == []
    assert [name for name in new if not is_defined(name)] == []


# Rooms.


def floors_of_the_contract(package: str) -> list[str]:
    """The floors of a package from the top, as import-linter holds them; single modules are left out."""
    settings = tomllib.loads(read(ROOT / "pyproject.toml"))["tool"]["importlinter"]
    (layers,) = (one["layers"] for one in settings["contracts"] if one.get("containers") == [package])
    floors = [[room for room in floor.split(" | ") if room in rooms_of(package)] for floor in layers]
    return [" | ".join(rooms) for rooms in floors if rooms]


def drawn_floors(text: str) -> dict[str, list[str]]:
    """The floors of each package in the first diagram of a page, in the order of its arrows."""
    diagram = next(body for language, body in split_code(text)[1] if language == "mermaid")
    found = {}
    for package, body in re.findall(r"subgraph (\w+)\[.*?\]\n(.*?)\n\s*end", diagram, re.DOTALL):
        labels = dict(re.findall(r'(\w+)\["(.*?)"\]', body))
        arrows = dict(re.findall(r"(\w+) --> (?=(\w+))", re.sub(r'\[".*?"\]', "", body)))
        (floor,) = set(labels) - set(arrows.values())
        order = [floor]
        while order[-1] in arrows:
            order.append(arrows[order[-1]])
        assert set(order) == set(labels), f"{package}: each floor has one arrow to the next"
        found[package] = [labels[name] for name in order]
    return found


def test_the_diagram_has_the_floors_of_the_contract() -> None:
    assert drawn_floors(read(ARCHITECTURE)) == {package: floors_of_the_contract(package) for package in PACKAGES}


@pytest.mark.parametrize("package", PACKAGES)
def test_the_floors_are_the_folders(package: str) -> None:
    drawn = [room for floor in drawn_floors(read(ARCHITECTURE))[package] for room in floor.split(" | ")]
    assert sorted(drawn) == sorted(rooms_of(package))


def test_the_page_says_what_each_room_is_for() -> None:
    """One row of the tables below the diagram for each room."""
    described, _, _ = read(ARCHITECTURE).partition("## One image")
    rows = re.findall(r"^\| `(\w+/\w+)/` \|", described, re.MULTILINE)
    assert sorted(rows) == sorted(f"{package}/{room}" for package in PACKAGES for room in rooms_of(package))


# Python.


def test_the_calls_on_the_front_page_fit_the_functions() -> None:
    """Every call in README's Python has a function of that name, which takes those arguments."""
    blocks = [body for language, body in split_code(read(ROOT / "README.md"))[1] if language == "python"]
    names: dict[str, object] = {}
    bound = []
    for tree in map(ast.parse, blocks):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                names |= {alias.name: pkgutil.resolve_name(f"{node.module}.{alias.name}") for alias in node.names}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and callable(names.get(node.func.id)):
                function, words = names[node.func.id], {str(word.arg) for word in node.keywords}
                signature = inspect.signature(function)  # type: ignore[arg-type]
                signature.bind(*node.args, **dict.fromkeys(words))
                assert words <= {*signature.parameters, *TrainingSettings.__annotations__}, node.func.id
                bound.append(node.func.id)
    assert bound == ["distill", "attack", "export", "verify"]


def test_the_method_that_a_page_adds_is_one() -> None:
    """The first block of docs/extending.md is a method whose imports exist; both files have the lines it says."""
    page = ROOT / "docs" / "extending.md"
    member, test = (body for language, body in split_code(read(page))[1] if language == "python")
    # The dataclass looks up its annotations in the module of its name.
    module = ModuleType("calm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "calm", module)
        exec(compile(member, str(page), "exec"), module.__dict__)
        assert module.METHOD().recipe_defaults
    lines = [int(count) for count in re.findall(r"calm\.py \| (\d+) \+", read(page))]
    assert lines == [len(text.splitlines()) for text in (member, test)]


# Command lines.


def command_lines(text: str) -> Iterator[list[str]]:
    """The words behind each `compress` in the code of a page, a container's entry point included."""
    blocks = [body for language, body in split_code(text)[1] if language in {"", "sh", "bash", "console", "yaml"}]
    for block in [*blocks, *code_spans(text)]:
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            # What a table of commands says of each comes after a wide gap.
            words = re.split(r" {4,}", line.removeprefix("$ ").strip())[0]
            if match := re.search(
                r'(?:^|(?<=\s))(?:\S*/compress|compress|compress:\w+|"\$IMAGE"|-m cli)\s+(?=\w)', words
            ):
                yield shlex.split(words[match.end() :].replace("...", ""), comments=True)


def options_of(command: str) -> set[str]:
    """Every option of a command, ``--help`` included."""
    single = load_command(command)
    return {name for one in single.params for name in (*one.opts, *one.secondary_opts)} | {"--help"}


def wrong_words(words: list[str]) -> list[str]:
    """The command of a line if there is none of that name, else its options that the command does not have."""
    name = words[0]
    if name not in COMMANDS:
        return [name]
    known = options_of(name)
    found = [word.strip("[]").partition("=")[0] for word in words[1:]]
    return [word for word in found if re.fullmatch(r"--[a-z].*", word) and word not in known]


@pytest.mark.parametrize("page", COMMAND_PAGES, ids=name_of)
def test_every_command_line_has_a_command_and_options_that_exist(page: Path) -> None:
    wrong = [(" ".join(words), bad) for words in command_lines(read(page)) if words and (bad := wrong_words(words))]
    assert wrong == []


def test_there_are_command_lines_to_check() -> None:
    lines = [words for page in COMMAND_PAGES for words in command_lines(read(page))]
    assert len(lines) > 40
    assert {words[0] for words in lines if words} == set(COMMANDS)


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("compress distil --teacher a.pt", ["distil"]),
        ("compress verify a.onnx --min-robust 0.4 --eps=8/255", ["--min-robust"]),
        ("docker run --rm compress:verify verify a.onnx --signature a.sig", ["--signature"]),
        ("compress export CHECKPOINT [--precisions P ...]", ["--precisions"]),
        ("compress verify a.onnx --seed 3  # --nothing", []),
    ],
)
def test_a_wrong_command_line_is_seen(line: str, wrong: list[str]) -> None:
    (words,) = command_lines(f"    {line}\n")
    assert wrong_words(words) == wrong


def test_options_that_pages_name_by_themselves_exist() -> None:
    """A code span that starts with an option, such as `--resume`: an option of some command, or of another program."""
    known = {option for command in COMMANDS for option in options_of(command)} | {"--version"}
    named = {
        (name_of(page), match[0])
        for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))
        for span in code_spans(read(page))
        if (match := re.match(r"--[a-z][a-z-]*", span))
    }
    assert len(named) > 20
    assert {one for one in named if one[1] not in known} == set()
