"""Several methods and seeds from one command: each run its own folder, the teacher and the data read once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.main import main
from compressor.checkpoint import save_checkpoint
from compressor.core.types import ModelSpec
from compressor.models.classifier import build_classifier

SMALL = [
    "--data", "digits", "--image-size", "16", "--train-samples", "40", "--epochs", "1", "--batch-size", "20",
    "--attack-steps", "1", "--threads", "1", "--device", "cpu", "--precision", "fp32", "--suite", "quick",
    "--eval-samples", "20", "--evidence-samples", "10",
]  # fmt: skip


@pytest.fixture
def teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMPRESS_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "teacher.safetensors"
    save_checkpoint(path, build_classifier(ModelSpec("wideresnet-10-1", 10, 16), seed=5), {})
    return path


def grid(teacher: Path, *more: str) -> list[str]:
    return ["distill", "--teacher", str(teacher), "--student", "wideresnet-10-1", *SMALL, *more]


def answer(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, dict]:
    capsys.readouterr()
    code = main([*arguments, "--json"])
    out = capsys.readouterr().out
    assert out.count("\n") == 1, "exactly one object on one line"
    return code, json.loads(out)


def test_each_method_and_seed_is_a_run_and_a_resumed_grid_repeats_none(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Path] = []
    from compressor.api import planning

    read_teacher = planning.read_teacher
    monkeypatch.setattr(planning, "read_teacher", lambda *a, **k: (reads.append(a[0].source), read_teacher(*a, **k))[1])
    command = grid(teacher, "--method", "rslad,sat", "--seeds", "0,1", "--run", "all")
    code, value = answer(command, capsys)
    assert code in (0, 1, 3)
    assert value["schema"] == "compress.distill-grid/1"
    names = [f"{method}-wideresnet-10-1-digits-s{seed}" for method in ("rslad", "sat") for seed in (0, 1)]
    assert [run["run"] for run in value["runs"]] == [str(Path("all") / name) for name in names]
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == sorted(names)
    assert len(reads) == 1
    digests = {(tmp_path / "all" / name / "last.safetensors").read_bytes() for name in names}
    assert len(digests) == 4

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "all").rglob("*.safetensors")}
    assert main([*command, "--resume"]) == code
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "all").rglob("*.safetensors")} == before
    shown = capsys.readouterr()
    assert "training is done already" in shown.err
    assert "4 runs" in shown.out
    assert all(str(run["verdict"]) in shown.out for run in value["runs"])
    assert shown.out.strip().splitlines()[-1].startswith("compress compare all/rslad-")


def test_a_run_that_fails_is_reported_and_the_others_go_on(teacher: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, value = answer(grid(teacher, "--method", "natural,rslad", "--run", "all", "--learning-rate", "1e30"), capsys)
    errors = [run.get("error", {}).get("code") for run in value["runs"]]
    assert "diverged" in errors
    assert len(errors) == 2
    assert code != 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--method", "rslad,rsald"], "there is no method 'rsald'"),
        (["--method", "rslad,,sat"], "an empty place"),
        (["--method", "rslad,rslad"], "twice"),
        (["--seeds", "0,1,1"], "twice"),
        (["--seeds", "1,01"], "twice"),
        (["--seeds", "0,x"], "whole numbers"),
        (["--seeds", "0,1", "--seed", "2"], "exclude each other"),
        (["--method", "rslad,natural", "--awp", "0.005"], "the method natural makes none"),
    ],
)
def test_nothing_starts_where_any_run_is_wrong(
    options: list[str], said: str, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, value = answer(grid(teacher, "--run", "all", *options), capsys)
    assert code == 2
    assert said in value["error"]["message"]
    assert not (tmp_path / "all").exists()
