"""``compress attack`` as its user runs it: one table for a checkpoint and its file, for one process and several."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.main import main
from compressor.api.evaluation import default_samples
from compressor.checkpoint import load_checkpoint
from exporters.claim.claim import model_bytes
from exporters.writing.onnx import export_onnx

ROOT = Path(__file__).parents[3]
WORDS = ["--data", "digits", "--eps", "0.06", "--device", "cpu", "--threads", "1"]
FIGURES = ("clean_accuracy", "robust_accuracy", "attacks", "unique", "classes", "confusion", "alarms", "samples")


@pytest.fixture(scope="module")
def place(digits_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network that knows the digits, and its file."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copy(digits_student, folder / "model.safetensors")
    (folder / "model.onnx").write_bytes(model_bytes(export_onnx(load_checkpoint(digits_student).classifier, 8)))
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*command: str, launcher: tuple[str, ...] = ()) -> dict[str, Any]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *launcher, "cli", *command, "--json"],
        capture_output=True, text=True, timeout=240, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def alone(place: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process finds of the checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("alone"))
        return run("attack", str(place / "model.safetensors"), *WORDS, "--samples", "60", "--batch-size", "20")


def test_a_file_has_its_checkpoint_s_table(place: Path, alone: dict[str, Any]) -> None:
    found = run("attack", str(place / "model.onnx"), *WORDS, "--samples", "60", "--batch-size", "20")
    assert 0.1 < alone["robust_accuracy"] < alone["clean_accuracy"] - 0.1
    assert {name: found[name] for name in FIGURES} == {name: alone[name] for name in FIGURES}


def test_two_processes_find_what_one_finds(place: Path, alone: dict[str, Any]) -> None:
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--")
    words = ("attack", str(place / "model.safetensors"), *WORDS, "--samples", "60", "--batch-size", "20")
    assert run(*words, launcher=launcher) == alone


def test_a_table_says_what_it_is_made_of(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attack", str(place / "model.safetensors"), *WORDS, "--samples", "20", "--proposals", "bf16"]) == 0
    out = capsys.readouterr().out
    assert "quick@1, Linf 0.06, seed 0" in out
    assert "95 % interval" in out
    assert "worst case" in out


def test_the_reference_is_run_beside_and_the_disagreements_are_counted(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--suite", "standard", "--reference", "--samples", "10", "--state", "kept"]
    strong = [word if word != "0.06" else "0.3" for word in WORDS]
    assert main(["attack", str(place / "model.safetensors"), *strong, *words]) == 0
    told = capsys.readouterr().out
    assert "0 disagreement(s); McNemar p = 1" in told
    assert {path.name for path in tmp_path.iterdir()} == {"kept", "kept.reference"}

    assert main(["attack", str(place / "model.safetensors"), *strong, *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["reference"] == {
        "images": 10, "disagreements": 0, "ours_alone": 0, "reference_alone": 0, "p_value": 1.0, "excess": 0.0,
        "holds": True,
    }  # fmt: skip
    assert sum(found["broken_by"]["AA"].values()) == round(10 * (found["clean_accuracy"] - found["robust_accuracy"]))


@pytest.mark.parametrize(
    ("file", "words", "says"),
    [
        ("model.safetensors", ["--reference"], "has none"),
        ("model.safetensors", ["--proposals", "int8"], "int8"),
        ("model.onnx", ["--proposals", "bf16"], "fp32"),
        ("model.onnx", ["--normalization", "cifar10"], "--normalization"),
        ("model.safetensors", ["--suite", "standart"], "standard"),
    ],
)
def test_what_cannot_work_is_said_before_any_attack(
    place: Path, file: str, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["attack", str(place / file), *WORDS, *words]) == 2
    told = capsys.readouterr().err
    assert says in told
    assert "Attacking" not in told


@pytest.mark.parametrize(("suite", "samples"), [("standard", None), ("default", 1000), ("paper", 1000)])
def test_autoattack_alone_takes_all_images_of_a_finished_run(suite: str, samples: int | None) -> None:
    assert default_samples(suite) == samples
