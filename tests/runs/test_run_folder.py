"""The run folder: entered once, entered again with --resume, never mixed up."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from compressor.core.errors import RecipeChangedError, RunExistsError, UsageError, WriteError
from compressor.runs.run_folder import RunFolder, default_run_path

DESCRIPTION = {"method": "rslad", "epochs": 3, "milestones": [1.0, 2.0], "inputs": {"train_sha256": "ab"}}


def test_a_run_starts_once_and_resumes_often(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "runs" / "a")
    run.start(DESCRIPTION, resume=True)  # absent: --resume starts it
    run.start(DESCRIPTION, resume=True)
    with pytest.raises(RunExistsError, match="exists already") as caught:
        run.start(DESCRIPTION, resume=False)
    assert "--resume" in caught.value.hint


def test_a_changed_recipe_is_refused_with_the_difference(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "a")
    run.start(DESCRIPTION, resume=False)
    changed = DESCRIPTION | {"epochs": 4, "inputs": {"train_sha256": "cd"}}
    with pytest.raises(RecipeChangedError, match=r"epochs: 3 -> 4; inputs.train_sha256: ab -> cd"):
        run.start(changed, resume=True)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    for resume in (False, True):
        with pytest.raises(RunExistsError, match="not a run folder"):
            RunFolder(tmp_path).start(DESCRIPTION, resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_state_round_trip_and_damage(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.load_state() is None
    run.save_state({"student": {"weight": torch.arange(3.0)}, "state": {"epoch": 2, "sums": {"total": 0.5}}})
    state = run.load_state()
    assert state is not None
    assert torch.equal(state["student"]["weight"], torch.arange(3.0))
    assert state["state"] == {"epoch": 2, "sums": {"total": 0.5}}

    run.resume_state.write_bytes(run.resume_state.read_bytes()[:100])
    with pytest.raises(UsageError, match="is damaged"):
        run.load_state()


def test_the_lock_leaves_no_empty_folder_and_refuses_a_file(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "a" / "b").lock():
        pass
    assert not (tmp_path / "a" / "b").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(RunExistsError, match="is a file"), RunFolder(tmp_path / "file").lock():
        pass


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with RunFolder(tmp_path).lock(), pytest.raises(RunExistsError, match="another process"), RunFolder(tmp_path).lock():
        pass
    with RunFolder(tmp_path).lock():
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_leaves_the_old_file_and_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path)
    run.write_records(run.metrics, [{"epoch": 1}])
    before = run.metrics.read_bytes()

    def write_to_full_device(self: Path, data: bytes) -> int:
        with open("/dev/full", "wb") as full:  # noqa: PTH123 - Path.write_bytes is what is replaced
            full.write(data)
            full.flush()
        return len(data)

    monkeypatch.setattr(Path, "write_bytes", write_to_full_device)
    with pytest.raises(WriteError, match="No space left on device"):
        run.write_records(run.metrics, [{"epoch": 1}, {"epoch": 2}])
    assert run.metrics.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_model_s_name_makes_a_folder_on_every_file_system() -> None:
    path = default_run_path("rslad", "torchvision:resnet18+small", "cifar10", 3)
    assert path == Path("runs/rslad-torchvision-resnet18-small-cifar10-s3")
    assert default_run_path("sat", "python:mine.nets:tiny", "digits", 0).name == "sat-python-mine.nets-tiny-digits-s0"
