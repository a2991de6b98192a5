"""The folder: complete, the same for the same findings, and never written over anything else."""

from __future__ import annotations

import csv
import errno
import io
import json
import re
from pathlib import Path

import pytest

from compressor.attack_report import refuse_foreign_report, write_folder
from compressor.attack_report.findings import ReportFindings
from compressor.attack_report.folder import FILES, report_files
from compressor.attack_report.page import page
from compressor.attack_report.tables import tables
from compressor.core.errors import UsageError, WriteError

from .conftest import make_findings, make_report


def test_every_file_is_written_and_the_same_findings_give_the_same_bytes(tmp_path: Path) -> None:
    write_folder(tmp_path / "new" / "one", make_findings())
    write_folder(tmp_path / "new" / "two", make_findings())
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / "new" / name).iterdir()} for name in ("one", "two"))
    assert set(one) == set(FILES)
    assert one == two
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["one", "two"]  # nothing temporary is left
    assert str(tmp_path).encode() not in b"".join(one.values())


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files stand in for the figures, which take most of the time."""

    def figures(findings: ReportFindings) -> dict[str, bytes]:
        return {"gallery.png": b"drawn"} if findings.examples else {}

    monkeypatch.setattr("compressor.attack_report.folder.figures", figures)


@pytest.mark.usefixtures("undrawn")
def test_an_earlier_report_is_replaced_as_a_whole(tmp_path: Path) -> None:
    write_folder(tmp_path / "report", make_findings())
    write_folder(tmp_path / "report", make_findings(examples=()))
    assert not (tmp_path / "report" / "gallery.png").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


@pytest.mark.usefixtures("undrawn")
def test_a_report_goes_into_an_empty_folder(tmp_path: Path) -> None:
    refuse_foreign_report(tmp_path / "absent")
    write_folder(tmp_path, make_findings())
    assert (tmp_path / "report.md").is_file()


@pytest.mark.parametrize("held", ["notes.txt", "report.json", ".hidden"])
def test_nothing_else_is_written_over(tmp_path: Path, held: str) -> None:
    (tmp_path / held).write_text('{"schema": "another/1"}')
    with pytest.raises(UsageError, match=re.escape(str(tmp_path))):
        write_folder(tmp_path, make_findings())
    assert [path.name for path in tmp_path.iterdir()] == [held]
    with pytest.raises(UsageError, match="not a folder"):
        refuse_foreign_report(tmp_path / held)


@pytest.mark.usefixtures("undrawn")
def test_a_report_with_something_of_the_users_in_it_is_left_alone(tmp_path: Path) -> None:
    write_folder(tmp_path / "report", make_findings())
    (tmp_path / "report" / "my notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"my notes\.txt"):
        write_folder(tmp_path / "report", make_findings())


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("code", [errno.EBUSY, errno.EACCES])
def test_a_mounted_folder_keeps_its_place_and_gets_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    folder = tmp_path / "mounted"
    write_folder(folder, make_findings())
    place = folder.stat().st_ino

    def refuse(path: Path, target: Path) -> Path:
        raise OSError(code, "in use")

    monkeypatch.setattr(Path, "rename", refuse)
    write_folder(folder, make_findings(examples=()))
    assert folder.stat().st_ino == place
    assert not (folder / "gallery.png").exists()
    assert json.loads((folder / "report.json").read_text())["gallery"]["shown"] == []
    assert [path.name for path in tmp_path.iterdir()] == ["mounted"]


@pytest.mark.usefixtures("undrawn")
def test_an_earlier_report_survives_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "report"
    write_folder(folder, make_findings())
    rename = Path.rename

    def fail_for_the_new_one(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new_one)
    with pytest.raises(WriteError, match="No space left"):
        write_folder(folder, make_findings(examples=()))
    assert (folder / "gallery.png").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


@pytest.mark.usefixtures("undrawn")
def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot write"):
        write_folder(tmp_path / "file" / "report", make_findings())


@pytest.mark.usefixtures("undrawn")
def test_the_json_holds_the_figures_data_and_no_infinity() -> None:
    found = json.loads(report_files(make_findings())["report.json"])
    assert found["schema"] == "compress.attack-report/1"
    assert found["norms"]["Linf"] == {"median": 0.02, "distances": [0.0, 0.02, None]}
    assert found["norms"]["L2"]["median"] is None
    assert found["confusion"]["cells"] == [[0, 1, 1], [0, 2, 1], [1, 0, 1], [1, 2, 1], [2, 2, 2]]
    assert [point["accuracy"] for point in found["curves"]["Linf"]] == [1.0, 2 / 3, 1 / 3]
    assert found["curves"]["Linf"][1]["standing"] == "011"
    assert found["evaluation"]["alarms"][0]["name"] == "zero-gradients"
    assert found["gallery"]["shown"][0]["after"] == {"label": 1, "confidence": 0.6}


def test_tables_say_what_the_findings_do() -> None:
    read = {name: list(csv.DictReader(io.StringIO(text))) for name, text in tables(make_findings()).items()}
    attacks = {row["attack"]: row for row in read["attacks.csv"]}
    assert (attacks["A"]["broke"], attacks["A"]["broke_alone"]) == ("2", "1")
    assert (attacks["worst case"]["correct"], attacks["worst case"]["broke"]) == ("2", "3")
    assert read["norms.csv"][1] == {"image": "2", "label": "1", "Linf": "0.02", "L2": ""}
    assert [row["class 2"] for row in read["confusion.csv"]] == ["1", "1", "2"]
    assert len(read["targeted.csv"]) == 6  # pairs of unlike classes
    assert {row["norm"] for row in read["curve.csv"]} == {"Linf", "L2"}
    assert read["classes.csv"][2]["robust_accuracy"] == "1"


def test_the_page_puts_alarms_before_figures_and_says_that_they_cannot_be_trusted() -> None:
    findings = make_findings()
    text = page(findings, FILES)
    assert text.index("zero-gradients") < text.index("## Each attack")
    assert "What climbs gradients can't move." in text
    assert "not trustworthy" in text
    assert r"model\|1.onnx" in text
    pictures = re.findall(r"!\[.+\]\((.+)\)", text)
    assert pictures == ["curve.png", "norms.png", "confusion.png", "gallery.png"]
    healthy = page(make_findings(report=make_report()), FILES)
    assert "No alarm was raised" in healthy
    assert "not trustworthy" not in healthy


def test_of_many_classes_the_page_has_the_weakest() -> None:
    findings = make_findings(classes=100)
    text = page(findings, FILES)
    assert "class 0 |" in text
    assert "class 2 |" in text
    assert "class 50 |" not in text  # it has no images
