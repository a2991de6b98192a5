"""``compress attack --report``: the folder that a user gets, and what is refused before any attack."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

from cli.main import main
from compressor.checkpoint import save_checkpoint
from compressor.core.types import ModelSpec
from compressor.models.classifier import build_classifier

WORDS = ["--data", "digits", "--samples", "10", "--eps", "16/255", "--device", "cpu", "--threads", "1"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_checkpoint(path, build_classifier(ModelSpec("wideresnet-10-1", 10, 8), seed=1), {})
    return path


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_report_is_written_with_what_was_asked_for(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--report", "out/report", "--curve", "0,4/255,16/255", "--json"]
    assert main(["attack", str(checkpoint), *WORDS, *words]) == 0
    told = capsys.readouterr()
    assert "forward passes" in told.err
    answer = json.loads(told.out)
    assert answer["report"] == "out/report"

    folder = tmp_path / "out" / "report"
    found = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert found["evaluation"]["attacks"] == answer["attacks"]
    assert [point["eps"] for point in found["curves"]["Linf"]] == ["0", "4/255", "16/255"]
    assert found["curves"]["Linf"][0]["accuracy"] == answer["clean_accuracy"]
    assert len(found["sample"]["positions"]) == 10
    rows = {
        row["attack"]: row for row in csv.DictReader((folder / "attacks.csv").read_text(encoding="utf-8").splitlines())
    }
    assert rows["worst case"]["correct"] == str(round(10 * answer["robust_accuracy"]))
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "model.safetensors" in text
    assert str(checkpoint.parent) not in text
    assert all(path.stat().st_size for path in folder.iterdir())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--curve", "0,2/255"], "--curve"),
        (["--report", "taken"], "taken"),
        (["--report", "new", "--curve", "0"], "--curve"),
        (["--report", "new", "--curve", "much"], "much"),
    ],
)
def test_what_cannot_work_is_said_before_any_attack(
    checkpoint: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("taken").mkdir()
    (Path("taken") / "thesis.tex").write_text("mine")
    assert main(["attack", str(checkpoint), *WORDS, *words]) == 2
    err = capsys.readouterr().err
    assert says in err.split("error:")[1]
    assert "Attacking" not in err
    assert not Path("new").exists()
    assert [path.name for path in Path("taken").iterdir()] == ["thesis.tex"]


def test_without_matplotlib_the_extra_is_named(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["attack", str(checkpoint), *WORDS, "--report", "new"]) == 2
    assert "robust-compress[figures]" in capsys.readouterr().err
