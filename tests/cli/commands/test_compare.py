"""`compress compare` on real runs, small: what is measured, what is refused, and what the table says."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.main import main
from compressor.runs.run_folder import RunFolder
from tests.support.commands import answer, save_pictures, work_in_copy

DATA = ["--data", "imagefolder:pictures", "--threads", "1", "--device", "cpu"]
RUNS = ["sat-0", "sat-1", "natural-0"]


def draw_pictures(root: Path) -> None:
    """Two classes, stripes one way or the other under noise, that a small network learns within a few steps."""

    def paint(rng: np.random.Generator, name: str) -> np.ndarray:
        picture = rng.integers(0, 200, (16, 16, 3))
        picture[(slice(None, None, 4), slice(None))[:: 1 if name == "across" else -1]] += 55
        return picture

    save_pictures(root, ("across", "along"), {"train": 24, "test": 20}, paint)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures and three finished runs; one of them has both checkpoints measured."""
    place = tmp_path_factory.mktemp("compare")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("COMPRESS_CACHE_DIR", str(place / "cache"))
        draw_pictures(place / "pictures")
        assert main([*train("sat", 0), "--evaluate", "both"]) == 0
        assert main(train("sat", 1)) == 0
        assert main(train("natural", 0)) == 0
    return place


def train(method: str, seed: int) -> list[str]:
    command = ["train", "--model", "wideresnet-10-1", "--method", method, "--seed", str(seed), "--epochs", "2"]
    rest = ["--batch-size", "16", "--attack-steps", "1", "--learning-rate", "0.05", "--image-size", "16"]
    return [*command, *rest, "--suite", "quick", "--run", f"{method}-{seed}", "--quiet", *DATA]


@pytest.fixture
def copy(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return work_in_copy(place, tmp_path, monkeypatch)


def evaluation(run: str, name: str = "evaluation.json") -> dict[str, Any]:
    value: dict[str, Any] = json.loads((Path(run) / name).read_text())
    return value


def test_every_run_is_attacked_on_the_same_images_whatever_its_seed(copy: Path) -> None:
    assert len({evaluation(run)["test"]["sha256"] for run in RUNS}) == 1
    assert {evaluation(run)["seed"] for run in RUNS} == {0}
    main(["compare", *RUNS, "--evaluate", "best", "--eval-samples", "10", *DATA])
    subsets = {evaluation(run)["test"]["sha256"] for run in RUNS}
    assert len(subsets) == 1
    assert subsets != {evaluation("sat-0", "evaluation.last.json")["test"]["sha256"]}


def test_measuring_writes_what_is_missing_and_nothing_again(copy: Path) -> None:
    before = {path: path.read_bytes() for path in copy.glob("*/evaluation*")}
    assert main(["compare", *RUNS, "--evaluate", "both", *DATA]) == 0
    for run in RUNS:
        assert evaluation(run, "evaluation.last.json")["checkpoint"]["which"] == "last"
        assert evaluation(run, "evaluation.last.json")["checkpoint"]["epoch"] == 2
    assert {path: path.read_bytes() for path in before} == before


def test_the_same_weights_are_attacked_once(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy("sat-1/best.safetensors", "sat-1/last.safetensors")

    def never(*_: object, **__: object) -> None:
        raise AssertionError("it was attacked again")

    monkeypatch.setattr("compressor.api.evaluation.attack_images", never)
    assert main(["compare", "sat-1", "--evaluate", "both", *DATA, "--debug"]) == 0
    best, last = evaluation("sat-1"), evaluation("sat-1", "evaluation.last.json")
    assert last["bits"] == best["bits"]
    assert last["checkpoint"] == {**best["checkpoint"], "which": "last"}


def test_a_stopped_measurement_goes_on(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from compressor.core.errors import Interrupted
    from compressor.evaluation import stages as engine

    state = Path("sat-1/evaluation.last.quick@1.state")

    def stop_after_the_first_batch(*_: object) -> None:
        if any(state.glob("*.npz")):
            raise Interrupted(15)

    with monkeypatch.context() as patch:
        patch.setattr("compressor.system.interruption.StopRequest.raise_if_set", stop_after_the_first_batch)
        assert main(["compare", "sat-1", "--evaluate", "both", *DATA]) == 143
    assert not Path("sat-1/evaluation.last.json").exists()
    assert [path.name for path in state.glob("*.npz")] == ["00.00.00000000.npz"], "what was done is kept"

    judged = []
    judge = engine.judge
    monkeypatch.setattr("compressor.evaluation.stages.judge", lambda *a: judged.append(1) or judge(*a))
    assert main(["compare", "sat-1", "--evaluate", "both", *DATA]) == 0
    assert len(judged) == 2, "one batch for each attack, none for the natural images again"
    assert not state.exists(), "it holds images, and all else is in evaluation.json"


def measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *RUNS, "--evaluate", "both", "--quiet", *DATA]) == 0
    capsys.readouterr()


def test_the_table_has_a_row_for_each_method_and_a_block_for_each_checkpoint(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured(capsys)
    assert main(["compare", *RUNS]) == 0
    out = capsys.readouterr().out
    assert out.index("best checkpoint") < out.index("last checkpoint") < out.index("costs")
    rows = [line.split()[0] for line in out.splitlines() if line.split()[:1] in (["sat"], ["natural"])]
    assert rows == ["sat", "natural"] * 3, "a row in each block"
    assert "best checkpoint of wideresnet-10-1: accuracy, %" in out
    assert "the same 40 test images" in out
    assert "± is the standard deviation over the seeds" in out
    assert "validation, 4 images, PGD-10 (sat); validation, 4 images, clean accuracy (natural)" in out
    assert "McNemar" in out
    assert "not measured" not in out


def test_what_is_not_measured_is_a_dash_and_the_way_out_is_said(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "sat-0", "natural-0", "--format", "markdown"]) == 0
    out = capsys.readouterr().out
    head, _, first, second = out.splitlines()[:4]
    assert head.startswith(
        "| student | method | best: clean | best: FGSM | best: PGD-10 | best: worst case | last: clean"
    )
    assert " - " not in first
    assert second.count(" - ") == 4
    assert "--evaluate both RUN... does it: natural-0" in out


def test_csv_holds_the_same_numbers_as_json(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured(capsys)
    code, value = answer(["compare", *RUNS], capsys)
    assert code == 0
    assert value["schema"] == "compress.compare/1"
    assert main(["compare", *RUNS, "--format", "csv"]) == 0
    lines = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [(line["method"], line["checkpoint"]) for line in lines] == [
        ("sat", "best"), ("sat", "last"), ("natural", "best"), ("natural", "last"),
    ]  # fmt: skip
    for line in lines:
        row = next(row for row in value["rows"] if row["method"] == line["method"])
        cell = row[line["checkpoint"]]["worst case"]
        assert float(line["worst case"]) == cell["mean"]
        assert line["worst case std"] == ("" if cell["std"] is None else str(cell["std"]))
        assert int(line["macs"]) == row["macs"] > 0
        assert line["seeds"] == " ".join(map(str, row["seeds"]))
    assert {row["name"]: row["seeds"] for row in value["rows"]} == {
        "wideresnet-10-1 sat": [0, 1], "wideresnet-10-1 natural": [0],
    }  # fmt: skip


def test_the_format_json_is_the_json_of_the_command(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, value = answer(["compare", *RUNS], capsys)
    assert main(["compare", *RUNS, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == value
    assert main(["compare", *RUNS, "--output", "table.json"]) == 0
    assert capsys.readouterr().out == ""
    assert json.loads(Path("table.json").read_text()) == value


def test_training_says_where_both_evaluations_are(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, value = answer([*train("sat", 0), "--evaluate", "both", "--resume"], capsys)
    assert code == 0
    assert value["evaluations"] == {"best": "sat-0/evaluation.json", "last": "sat-0/evaluation.last.json"}
    code, value = answer([*train("sat", 1), "--resume"], capsys)
    assert value["evaluations"] == {"best": "sat-1/evaluation.json", "last": None}


def test_a_folder_that_another_process_holds_is_not_measured(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunFolder(Path("sat-1")).lock():
        code, value = answer(["compare", "sat-1", "--evaluate", "both", *DATA], capsys)
    assert code == 2
    assert "another process" in value["error"]["message"]


def test_a_file_gets_the_format_of_its_name(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, start in (("table.md", "| student "), ("table.csv", "student,")):
        assert main(["compare", *RUNS, "--output", name]) == 0
        assert Path(name).read_text().startswith(start)
    assert not [path for path in copy.iterdir() if path.name.startswith(".")], "nothing temporary is left"


def test_a_checkpoint_chosen_on_test_images_is_warned_of(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = evaluation("sat-1")
    value["checkpoint"]["selection"] = {"split": "test", "samples": 40}
    Path("sat-1/evaluation.json").write_text(json.dumps(value))
    assert main(["compare", *RUNS, "--quiet"]) == 0
    assert "sat-1 chose its best checkpoint on test images" in capsys.readouterr().err


def break_json(run: Path) -> None:
    (run / "evaluation.json").write_text("{")


def forget(run: Path) -> None:
    (run / "evaluation.json").unlink()


def unfinish(run: Path) -> None:
    (run / "metrics.jsonl").write_text((run / "metrics.jsonl").read_text().splitlines()[0] + "\n")


def train_on(run: Path) -> None:
    shutil.copy("natural-0/best.safetensors", run / "best.safetensors")


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (break_json, "evaluation.json is damaged"),
        (forget, "there is no sat-1"),
        (unfinish, "is not finished: it has done 1 of 2 epochs"),
        (train_on, "is about another best.safetensors"),
    ],
)
def test_a_run_that_cannot_be_used_is_one_sentence_and_exit_2(
    harm: Callable[[Path], None], says: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    harm(Path("sat-1"))
    code, value = answer(["compare", *RUNS], capsys)
    assert code == 2
    assert value["error"]["code"] == "unreadable-run"
    assert says in value["error"]["message"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "there is no folder nowhere"),
        (["pictures"], "pictures is not a run folder"),
        (["sat-0", "sat-0"], "the same run twice"),
        (["sat-0", "--against", "nowhere"], "there is no folder nowhere"),
        (["sat-0", "--format", "latex"], "there is no format 'latex'"),
        (["sat-0", "--output", "table.txt"], "a table is for a terminal"),
        (["sat-0", "--suite", "paper"], "--suite says how to measure"),
        (["sat-0", "--evaluate", "all"], "--evaluate is 'all'"),
        (["sat-0", "--evaluate", "both", "--suite", "papers"], "there is no suite 'papers'"),
        (["sat-0", "--evaluate", "both", "--eps", "8/0"], "eps '8/0' is not a number"),
        (["sat-0", "--evaluate", "both"], "a file does not record where that is"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_2(
    arguments: list[str], says: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("sat-0/evaluation.last.json").unlink()
    code, value = answer(["compare", *arguments], capsys)
    assert code == 2
    assert says in value["error"]["message"]


def test_unlike_evaluations_are_refused_and_measured_alike_they_compare(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "sat-0", "--evaluate", "best", "--eval-samples", "10", *DATA]) == 0
    code, value = answer(["compare", *RUNS], capsys)
    assert code == 2
    assert "images 10 and 40" in value["error"]["message"]
    code, value = answer(["compare", *RUNS, "--evaluate", "best", *DATA], capsys)
    assert (code, value["samples"]) == (0, 10), "as the first run was"


def test_code_of_ones_own_runs_only_where_it_is_named(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("own_network.py").write_text(
        "from torch import nn\n\n\n"
        "def tiny(num_classes):\n"
        "    layers = nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes)\n"
        "    return nn.Sequential(*layers)\n"
    )
    monkeypatch.setattr("compressor.models.user_code._allowed", set())
    monkeypatch.syspath_prepend(str(copy))
    name = "python:own_network:tiny"
    command = train("natural", 0)
    command[command.index("--model") + 1] = name
    command[command.index("--run") + 1] = "own"
    assert main(command) == 0
    capsys.readouterr()
    monkeypatch.setattr("compressor.models.user_code._allowed", set())
    assert answer(["compare", "own"], capsys)[0] == 0, "reading what was measured runs no code"
    measure = ["compare", "own", "--evaluate", "both", *DATA]
    code, value = answer(measure, capsys)
    assert code == 2
    assert value["error"]["code"] == "unsafe-checkpoint"
    code, value = answer([*measure, "--model", name], capsys)
    assert code == 0
    assert value["rows"][0]["last"] is not None


def test_a_folder_that_holds_runs_says_how_to_name_them(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, value = answer(["compare", "."], capsys)
    assert code == 2
    assert "name them, as ./*" in value["error"]["hint"]
