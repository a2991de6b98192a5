"""``train`` and ``distill`` from Python: the same run as the command's, from names, files, modules and arrays."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cli.main import main
from compressor import Event, Run, distill, load_model, open_dataset, train
from compressor.core.errors import RecipeChangedError, RunExistsError, UnreadableDataError, UsageError
from compressor.models.in_memory import digest_of_module
from tests.api.conftest import SIDE, Net

SMALL = {"model": "mobilenetv2-0.25", "method": "natural", "data": "digits", "image_size": SIDE, "epochs": 1}
STUDENT = "mobilenetv2-0.25"


def train_small(**changes: object) -> Run:
    return train(**{**SMALL, "train_samples": 96, "threads": 1, **changes})  # type: ignore[arg-type]


def test_a_run_is_the_one_that_the_command_makes(capfd: pytest.CaptureFixture[str]) -> None:
    run = train_small(run="from-python", seed=3)
    assert capfd.readouterr() == ("", ""), "nothing is printed"
    words = ["train", "--model", STUDENT, "--method", "natural", "--data", "digits", "--image-size", "8", "--epochs"]
    words += ["1", "--train-samples", "96", "--seed", "3", "--threads", "1", "--run", "from-terminal"]
    assert main([*words, "--eval-samples", "10", "--suite", "quick", "--json"]) == 0
    for name in ("recipe.toml", "metrics.jsonl", "best.safetensors", "last.safetensors", "choices.json"):
        assert Path("from-python", name).read_bytes() == Path("from-terminal", name).read_bytes(), name
    assert json.loads(capfd.readouterr().out)["best"] == "from-terminal/best.safetensors"
    assert str(run.best) == "from-python/best.safetensors"


def test_a_run_says_what_it_is() -> None:
    run = train_small(run="runs/<b>a</b>")
    assert os.fspath(run) == "runs/<b>a</b>"
    assert [record["epoch"] for record in run.metrics] == [1]
    assert json.loads(json.dumps(run.to_json()))["recipe"]["model"] == STUDENT
    shown = run._repr_html_()
    assert "<b>" not in shown
    assert "&lt;b&gt;a&lt;/b&gt;" in shown
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.best_epoch = 2  # type: ignore[misc]


def test_a_run_is_entered_again_only_where_that_is_asked() -> None:
    first = train_small(run=Path("run"))
    with pytest.raises(RunExistsError):
        train_small(run="run")
    assert train_small(run="run", resume=True) == first
    with pytest.raises(RecipeChangedError, match="seed"):
        train_small(run="run", resume=True, seed=1)


def test_progress_is_told_in_events_and_may_stop_the_training() -> None:
    events: list[Event] = []
    train_small(run="told", on_progress=events.append)
    assert {"phase", "note", "progress"} <= {event.kind for event in events}
    assert any(event.kind == "progress" and event.done == event.total > 0 for event in events)

    class EnoughError(Exception):
        pass

    def stop(event: Event) -> None:
        if event.kind == "note" and event.text.startswith("epoch 1"):
            raise EnoughError

    with pytest.raises(EnoughError):
        train_small(run="stopped", on_progress=stop)
    assert train_small(run="stopped", resume=True).best.is_file()


def test_arguments_that_do_not_exist_or_make_no_sense_are_refused() -> None:
    with pytest.raises(TypeError, match="epoch"):
        train(epoch=1)  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="epochs is 0"):
        train_small(epochs=0)
    with pytest.raises(UsageError, match="needs a teacher"):
        train_small(method="rslad")
    assert not Path("runs").exists()


def test_fields_of_a_recipe_are_taken_and_arguments_win() -> None:
    run = train_small(run="a", recipe={"momentum": 0.5, "epochs": 7, "selection_steps": 1})
    assert (run.recipe.momentum, run.recipe.epochs) == (0.5, 1)


def test_a_module_is_teacher_and_student_and_stays_as_it_was(net: Net) -> None:
    net.train()
    before = digest_of_module(net)
    student = Net()
    run = distill(
        net, student=student, method="kd", data="digits", image_size=SIDE, run="run", epochs=1, train_samples=96
    )
    assert digest_of_module(net) == before
    assert net.training
    name = f"module:Net-{digest_of_module(student)[:12]}"
    assert run.recipe.model == name
    recorded = run.folder.recorded_inputs()
    assert recorded["teacher_sha256"] == before
    assert recorded["teacher"] == f"module:Net-{before[:12]}"
    loaded = load_model(run.best)
    assert isinstance(loaded.network, Net)
    assert digest_of_module(loaded.network) != digest_of_module(student), "it was trained"


def test_a_trained_module_is_loaded_in_another_process_by_giving_the_module(net: Net) -> None:
    run = train_small(model=net, run="run")
    script = (
        "import sys; from tests.api.conftest import Net; from compressor import load_model\n"
        "from compressor.core.errors import UsageError\n"
        "try: load_model(sys.argv[1])\n"
        "except UsageError as error: assert 'model=module' in error.hint, error.hint\n"
        "else: sys.exit('it was loaded without its code')\n"
        "print(type(load_model(sys.argv[1], model=Net()).network).__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(run.best.resolve())],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "Net"


def test_another_module_does_not_go_on_with_a_run(net: Net) -> None:
    train_small(model=net, run="run")
    with pytest.raises(RecipeChangedError, match="model"):
        train_small(model=nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 10)), run="run", resume=True)


def test_a_run_is_a_teacher() -> None:
    teacher = train_small(run="teacher")
    run = distill(teacher, student=STUDENT, method="kd", data="digits", run="student", epochs=1, train_samples=96)
    assert run.folder.recorded_inputs()["teacher"] == STUDENT
    assert run.recipe.image_size == SIDE, "the teacher's"


def test_arrays_and_tensors_are_the_dataset_that_they_are_of() -> None:
    split = open_dataset("digits", image_size=SIDE).load("train")
    named = train_small(run="named")
    arrays = train_small(run="arrays", data=(split.images, split.labels), recipe={"augmentation": "crop"})
    tensors = {"train": (torch.tensor(split.images) / 255, torch.tensor(split.labels))}
    floats = train_small(run="floats", data=tensors, recipe={"augmentation": "crop"})
    assert named.metrics == arrays.metrics == floats.metrics
    assert arrays.folder.recorded_inputs()["dataset"] == "arrays"


@pytest.mark.parametrize(
    ("images", "labels", "says"),
    [
        (np.zeros((4, 8, 8), np.uint8), np.arange(4), r"\(4, 8, 8\)"),
        (np.zeros((4, 3, 8, 8), np.uint8), np.arange(3), r"\(3,\)"),
        (np.full((4, 3, 8, 8), 2.0), np.arange(4), "from 2 to 2"),
        (np.full((4, 3, 8, 8), np.nan), np.arange(4), "nan"),
        (np.zeros((4, 3, 8, 9), np.uint8), np.arange(4), "8, 9 pixels"),
        (np.zeros((4, 3, 8, 8), np.uint8), np.arange(4) - 1, "below 0"),
        (np.zeros((4, 3, 8, 8), np.uint8), np.arange(4) / 4, "float64"),
    ],
)
def test_arrays_that_are_no_images_are_refused(images: np.ndarray, labels: np.ndarray, says: str) -> None:
    with pytest.raises(UnreadableDataError, match=says):
        open_dataset((images, labels))


def test_what_is_no_data_is_refused() -> None:
    with pytest.raises(UsageError, match="int"):
        open_dataset(3)  # type: ignore[arg-type]
    with pytest.raises(UnreadableDataError, match="a label is 3, and there are 2"):
        open_dataset((np.zeros((4, 3, 8, 8), np.uint8), np.arange(4)), class_names=["a", "b"])


def test_what_is_no_path_is_a_sentence() -> None:
    with pytest.raises(UsageError, match="3 is not a path"):
        train(model="mobilenetv2-0.25", method="natural", data="digits", run=3)  # type: ignore[arg-type]
