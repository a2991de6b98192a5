"""The whole way through the command line, small: train, distil, attack, export, verify; then tamper and resume."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from cli.main import main
from exporters.writing.onnx import set_metadata
from tests.support.commands import answer, save_pictures, work_in_copy

CLASSES = ("horizontal", "plain", "vertical")
SMALL = ["--batch-size", "16", "--attack-steps", "2", "--threads", "1", "--device", "cpu"]


def draw_pictures(root: Path) -> None:
    """Three classes that a small network tells apart within a few steps."""

    def paint(rng: np.random.Generator, name: str) -> np.ndarray:
        picture = rng.integers(0, 60, (16, 16, 3))
        if name == "horizontal":
            picture[::4] += 190
        elif name == "vertical":
            picture[:, ::4] += 190
        else:
            picture += 60
        return picture

    save_pictures(root, CLASSES, {"train": 32, "test": 16}, paint)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, a teacher and a finished distillation in ``student``."""
    place = tmp_path_factory.mktemp("whole-way")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("COMPRESS_CACHE_DIR", str(place / "cache"))
        draw_pictures(place / "pictures")
        teach = ["train", "--model", "wideresnet-10-2", "--method", "sat", "--epochs", "4", "--learning-rate", "0.05"]
        teach += ["--data", "imagefolder:pictures", "--image-size", "16", "--run", "teacher", "--suite", "quick"]
        assert main([*teach, *SMALL]) == 0
        assert main(distil()) == 0
    return place


def distil(*more: str) -> list[str]:
    command = ["distill", "--teacher", "teacher/best.safetensors", "--student", "wideresnet-10-1", "--epochs", "4"]
    rest = ["--learning-rate", "0.5", "--suite", "quick", "--evidence-samples", "24", "--run", "student"]
    return [*command, "--data", "imagefolder:pictures", *SMALL, *rest, *more]


@pytest.fixture
def copy(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return work_in_copy(place, tmp_path, monkeypatch)


def test_the_run_folder_holds_what_it_should(copy: Path) -> None:
    names = {path.name for path in (copy / "student").iterdir()}
    assert {
        "recipe.toml", "environment.json", "metrics.jsonl", "timings.jsonl", "best.safetensors", "last.safetensors",
        "resume.pt", "evaluation.json", "model.onnx", "model.evidence.npz",
    } <= names  # fmt: skip
    assert not [name for name in names if name.startswith(".") and name != ".lock"], "no temporary file is left"
    evaluation = json.loads((copy / "student" / "evaluation.json").read_text())
    assert set(evaluation["attacks"]) == {"FGSM", "PGD-10"}
    assert evaluation["samples"] == 48


def test_it_verifies_and_the_data_binds_it(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, verdict = answer(["verify", "student/model.onnx", "--data", "imagefolder:pictures", "--seed", "1"], capsys)
    assert (code, verdict["verdict"], verdict["assurance"]) == (0, "holds", "dataset-bound")
    code, verdict = answer(["verify", "student/model.onnx", "--suite", "replay"], capsys)
    assert (code, verdict["verdict"], verdict["attacked"]) == (0, "holds", 0)
    code, verdict = answer(["verify", "student/model.onnx", "--suite", "replay", "--require-eps", "16/255"], capsys)
    assert code == 1, "a policy that is not met"


@pytest.mark.parametrize("name", ["model.onnx", "model.evidence.npz"])
def test_a_flipped_byte_is_never_0(name: str, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copy / "student" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    code, verdict = answer(["verify", "student/model.onnx", "--suite", "replay"], capsys)
    assert code in (1, 3)
    assert verdict["exit_code"] == code


def test_resuming_a_finished_run_does_nothing_again(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.read_bytes() for path in (copy / "student").iterdir() if path.is_file()}
    code, value = answer(distil("--resume"), capsys)
    assert code == 0
    assert value["verdict"] == "holds"
    after = {path.name: path.read_bytes() for path in (copy / "student").iterdir() if path.is_file()}
    assert before == after


def test_a_damaged_export_is_made_anew(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, evidence = copy / "student" / "model.onnx", copy / "student" / "model.evidence.npz"
    before = model.read_bytes(), evidence.read_bytes()
    evidence.write_bytes(evidence.read_bytes()[:1000])
    code, _ = answer(distil("--resume"), capsys)
    assert code == 0
    assert (model.read_bytes(), evidence.read_bytes()) == before, "the same checkpoint exports to the same bytes"


def export(*more: str) -> list[str]:
    command = ["export", "student/best.safetensors", "--data", "imagefolder:pictures", "--evidence-samples", "24"]
    return [*command, "--threads", "1", *more]


def test_each_precision_is_a_file_of_its_own_that_holds(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = [word for name in ("fp32", "fp16", "int8") for word in ("--precision", name)]
    code, value = answer(export(*wanted, "--output", "files"), capsys)
    entries = {str(entry["precision"]): entry for entry in value["exports"]}  # type: ignore[attr-defined]
    assert code == 0
    assert list(entries) == ["fp32", "fp16", "int8"]
    assert {entry["verdict"] for entry in entries.values()} == {"holds"}
    assert entries["int8"]["bytes"] < entries["fp16"]["bytes"] < entries["fp32"]["bytes"]
    assert all(set(entry["latency_ms"]) == {"1", "64"} for entry in entries.values())
    assert entries["int8"]["robust_loss"] == entries["fp32"]["robust_accuracy"] - entries["int8"]["robust_accuracy"]
    for entry in entries.values():
        assert entry["mobile_reason"] is None
        assert entry["mobile"]["nnapi"]["with_fixed_batch"]["taken"] > 0
    names = {path.name for path in (copy / "files").iterdir()}
    stems = ("model", "model-fp16", "model-int8")
    assert names == {f"{stem}{ending}" for stem in stems for ending in (".onnx", ".evidence.npz")}
    code, verdict = answer(["verify", "files/model-int8.onnx", "--data", "imagefolder:pictures"], capsys)
    assert (code, verdict["claim"]["precision"]["name"]) == (0, "int8")  # type: ignore[index]


def test_a_file_for_a_phone_holds_too(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    phone = ["--precision", "fp16", "--opset", "13", "--fixed-batch", "2", "--output", "phone.onnx"]
    code, value = answer(export(*phone), capsys)
    (entry,) = value["exports"]  # type: ignore[misc]
    assert (code, entry["verdict"], entry["opset"], entry["fixed_batch"]) == (0, "holds", 13, 2)
    assert set(entry["latency_ms"]) == {"2"}
    assert entry["mobile"]["nnapi"]["with_fixed_batch"] is None
    assert entry["mobile"]["nnapi"]["as_it_is"]["taken"] > 0
    _, file = answer(["inspect", "phone.onnx"], capsys)
    assert (file["opset"], file["ir_version"], file["preprocessing"]["batch"]) == (13, 7, 2)  # type: ignore[index]


def test_a_file_without_a_claim_is_for_phones_as_well(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, value = answer(export("--evidence", "none", "--fixed-batch", "1", "--output", "bare.onnx"), capsys)
    (entry,) = value["exports"]  # type: ignore[misc]
    assert (code, entry["opset"], entry["fixed_batch"], entry["mobile_reason"]) == (0, 20, 1, None)
    _, file = answer(["inspect", "bare.onnx"], capsys)
    assert (file["claim"], file["class_names"]) == (None, list(CLASSES))
    assert file["preprocessing"]["batch"] == 1  # type: ignore[index]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--precision", "fp8"], "fp8"),
        (["--precision", "fp32", "--precision", "int8", "--output", "one.onnx"], "is one file"),
        (["--precision", "fp32", "--precision", "int8", "--output", "x", "--evidence-file", "e.npz"], "names one file"),
        (["--output", "student"], "exists already"),
        (["--opset", "12", "--output", "x"], "13 to 21"),
        (["--fixed-batch", "0", "--output", "x"], "1 to 1,024"),
    ],
)
def test_what_cannot_be_exported_is_said_before_any_work(
    words: list[str], reason: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    code, value = answer(export(*words), capsys)
    assert code == 2
    assert reason in str(value["error"])


def test_a_second_start_without_resume_is_refused(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, value = answer(distil(), capsys)
    assert code == 2
    assert "exists already" in str(value["error"])


def test_a_changed_recipe_is_refused_with_the_difference(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, value = answer([*distil("--resume"), "--epochs", "5"], capsys)
    assert code == 2
    assert "epochs: 4 -> 5" in str(value["error"])


def test_attack_says_the_same_of_checkpoint_and_file(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--data", "imagefolder:pictures", "--suite", "quick", "--threads", "1"]
    _, checkpoint = answer(["attack", "student/best.safetensors", *options], capsys)
    _, file = answer(["attack", "student/model.onnx", *options], capsys)
    assert file["clean_accuracy"] == checkpoint["clean_accuracy"]
    assert file["robust_accuracy"] == pytest.approx(checkpoint["robust_accuracy"], abs=1 / 48)


def test_inspect_knows_both(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, checkpoint = answer(["inspect", "student/best.safetensors"], capsys)
    assert (code, checkpoint["kind"], checkpoint["model"]) == (0, "checkpoint", "wideresnet-10-1")
    code, file = answer(["inspect", "student/model.onnx"], capsys)
    assert (code, file["kind"], file["classes"], file["image_size"]) == (0, "onnx", 3, 16)
    assert isinstance(file["claim"], dict)
    assert (file["opset"], file["ir_version"], file["class_names"]) == (20, 9, list(CLASSES))
    assert file["preprocessing"]["layout"] == "NCHW"  # type: ignore[index]
    main(["inspect", "student/model.onnx"])
    assert ", ".join(CLASSES) in capsys.readouterr().out


def test_classes_that_are_not_those_of_the_claim_are_pointed_out(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = onnx.load("student/model.onnx")
    set_metadata(model, "compress.classes", '["a","b","c"]')
    onnx.save(model, "student/model.onnx")
    _, file = answer(["inspect", "student/model.onnx"], capsys)
    assert any("not those of its claim" in note for note in file["notes"])  # type: ignore[attr-defined]
    assert answer(["verify", "student/model.onnx"], capsys)[0] == 1, "the model's digest covers them"


def test_the_wrong_number_of_classes(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, value = answer(["attack", "student/best.safetensors", "--data", "digits"], capsys)
    assert code == 2
    assert "3 classes" in str(value["error"])
