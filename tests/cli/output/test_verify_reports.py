"""``--junit``, ``--summary``, ``--attestation``: written on every exit of ``verify``, and without a say in its code."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from cli.main import main

REPORTS = ["--junit", "verify.xml", "--summary", "verify.md", "--attestation", "verify.json"]
QUICK = ["--seed", "1", "--threads", "1"]


@pytest.fixture(scope="module")
def sealed(digits_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small file that holds."""
    folder = tmp_path_factory.mktemp("sealed")
    words = ["--data", "digits", "--eps", "0.02", "--evidence-samples", "32", "--output", str(folder / "model.onnx")]
    assert main(["export", str(digits_student), *words]) == 0
    return folder


@pytest.fixture
def here(sealed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("model.onnx", "model.evidence.npz"):
        shutil.copy(sealed / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def suite_of(path: Path) -> ET.Element:
    root = ET.fromstring(path.read_bytes())
    assert root.tag == "testsuites"
    (suite,) = root
    for count, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(suite.attrib[count]) == len(list(suite.iter(tag)))
    return suite


def result_of(path: Path) -> Any:
    statement = json.loads(path.read_bytes())
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    return statement


def test_a_file_that_holds_passes_in_all_three(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["verify", "model.onnx", *QUICK, *REPORTS, "--min-samples", "16", "--json"]) == 0
    verdict = json.loads(capsys.readouterr().out)
    suite = suite_of(here / "verify.xml")
    assert int(suite.attrib["tests"]) == len(verdict["checks"]) + len(verdict["policy"])
    assert suite.attrib["failures"] == suite.attrib["errors"] == "0"
    statement = result_of(here / "verify.json")
    digest = hashlib.sha256((here / "model.onnx").read_bytes()).hexdigest()
    (subject,) = statement["subject"]
    assert (subject["name"], subject["digest"]) == ("model.onnx", {"sha256": digest})
    assert statement["predicate"]["result"] == "PASSED"
    assert str(here) not in (here / "verify.json").read_text()
    assert "holds" in (here / "verify.md").read_text().lower()
    assert verdict["unwritten"] == {}


def test_equal_runs_give_equal_bytes(here: Path) -> None:
    reports = [here / name for name in ("verify.xml", "verify.md", "verify.json")]
    found = []
    for _ in range(2):
        assert main(["verify", "model.onnx", "--suite", "replay", *QUICK, *REPORTS]) == 0
        found.append([path.read_bytes() for path in reports])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("words", "code", "failures", "errors"),
    [
        (["--suite", "replay", "--require-eps", "0.5"], 1, 1, 0),
        (["--suite", "replay", "--evidence-file", "absent.npz"], None, 0, 1),
        (["--time-limit", "1e-9"], 3, 0, 1),
        (["--require-norm", "L7"], 2, 0, 1),
        (["--nonsense"], 2, 0, 1),
    ],
)
def test_every_other_exit_is_reported_too(
    words: list[str], code: int | None, failures: int, errors: int, here: Path
) -> None:
    (here / "verify.xml").write_text("yesterday's")
    found = main(["verify", "model.onnx", *QUICK, *REPORTS, *words])
    assert found == code if code is not None else found in (2, 3)
    suite = suite_of(here / "verify.xml")
    assert int(suite.attrib["failures"]) >= failures
    assert int(suite.attrib["errors"]) >= errors
    assert (here / "verify.md").read_text()
    if (here / "verify.json").exists():
        assert result_of(here / "verify.json")["predicate"]["result"] != "PASSED"


@pytest.mark.parametrize(("damage", "code"), [("absent", 2), ("cut", 3)])
def test_a_file_that_cannot_be_read_is_an_error(damage: str, code: int, here: Path) -> None:
    data = (here / "model.onnx").read_bytes()
    (here / "model.onnx").unlink()
    if damage == "cut":
        (here / "model.onnx").write_bytes(data[: len(data) // 2])
    assert main(["verify", "model.onnx", *QUICK, *REPORTS]) == code
    assert int(suite_of(here / "verify.xml").attrib["errors"]) >= 1


def test_a_report_never_replaces_the_model(here: Path) -> None:
    before = (here / "model.onnx").read_bytes()
    assert main(["verify", "model.onnx", "--suite", "replay", "--junit", "model.onnx", "--summary", "verify.md"]) == 2
    assert (here / "model.onnx").read_bytes() == before
    assert (here / "verify.md").exists()


def test_a_report_that_cannot_be_written_changes_no_code(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "taken").mkdir()
    capsys.readouterr()
    words = ["verify", "model.onnx", "--suite", "replay", *QUICK, "--junit", "taken", "--json"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert list(json.loads(out)["unwritten"]) == ["--junit"]
    assert "--junit" in err


def test_what_a_file_says_of_itself_cannot_forge_a_report() -> None:
    from cli.output.verify_reports import subject_of
    from exporters.reports.account import account_of_error
    from exporters.reports.junit import junit
    from exporters.reports.markdown import markdown as in_markdown

    nasty = "</testcase><testcase name='ok'/>\x00\x1b[31m | <script> `x`\n# heading"
    account = account_of_error(nasty, "", 3, subject_of(Path("m.onnx"), None))
    text = junit(account)
    assert text is not None
    suite = ET.fromstring(text)[0]
    assert len(list(suite.iter("testcase"))) == int(suite.attrib["tests"])
    assert "\x1b" not in text
    assert "<script>" not in in_markdown(account)
