"""Each add-on through the whole loop: it does something, it resumes to the bit, and what is saved is what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from compressor.checkpoint import load_checkpoint
from compressor.core.errors import Interrupted
from compressor.runs.recipe import Recipe, resolve
from compressor.runs.run import Run
from compressor.runs.run_folder import RunFolder
from compressor.system.interruption import StopRequest
from compressor.training.configuration import RunConfig
from compressor.training.session import train
from tests.support.training import Stripes, Watcher

MODEL = "wideresnet-10-1"
ADD_ONS: dict[str, dict[str, object]] = {
    "ema": {"weight_average": "ema", "ema_decay": 0.9, "ema_warmup": 0.2},
    "swa": {"weight_average": "swa", "swa_start": 0.34},
    "awp": {"awp_gamma": 0.05, "awp_warmup": 0.34},
    "smoothing": {"label_smoothing": 0.2},
    "cosine": {"schedule": "cosine"},
    "one-cycle": {"schedule": "one-cycle"},
    "decay": {"weight_decay": 0.05, "weight_decay_on": "weights"},
    "all": {"weight_average": "ema", "awp_gamma": 0.01, "label_smoothing": 0.1, "schedule": "one-cycle"},
}


def recipe(**settings: object) -> Recipe:
    common = {
        "epochs": 3, "batch_size": 24, "image_size": 16, "attack_steps": 1, "validation_samples": 6,
        "precision": "fp32", "selection_steps": 1, "learning_rate": 0.05,
    }  # fmt: skip
    return resolve("sat", MODEL, None, {**common, **settings})


def run(settings: Recipe, folder: Path, *, resume: bool = False, stop_after: int = 0) -> Run:
    stop = StopRequest()
    request = RunConfig(settings, Stripes(78), RunFolder(folder), torch.device("cpu"), resume)
    return train(request, None, reporter=Watcher(stop, stop_after), stop=stop)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return run(recipe(), tmp_path_factory.mktemp("plain") / "run").last.read_bytes()


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(path).classifier.state_dict()


@pytest.mark.parametrize("name", ADD_ONS)
def test_it_changes_the_outcome_and_resumes_to_the_bit(name: str, tmp_path: Path, plain: bytes) -> None:
    settings = recipe(**ADD_ONS[name])
    whole = run(settings, tmp_path / "whole")
    assert whole.last.read_bytes() != plain
    # In the midst of an epoch, and at the end of one; what has no state has nothing to lose.
    for stop_after in (4, 6) if {"weight_average", "awp_gamma"} & set(ADD_ONS[name]) else ():
        parts = tmp_path / f"parts{stop_after}"
        with pytest.raises(Interrupted):
            run(settings, parts, stop_after=stop_after)
        resumed = run(settings, parts, resume=True)
        assert resumed.metrics == whole.metrics
        assert resumed.last.read_bytes() == whole.last.read_bytes()


def test_what_is_saved_is_the_average_and_what_trains_on_is_the_student(tmp_path: Path) -> None:
    for name in ("ema", "swa"):
        settings = recipe(**ADD_ONS[name])
        result = run(settings, tmp_path / name)
        saved = torch.load(RunFolder(tmp_path / name).resume_state, weights_only=True)
        deployed = weights(result.last)
        assert all(torch.equal(deployed[key], value) for key, value in saved["average"]["model"].items())
        assert any(not torch.equal(deployed[key], value) for key, value in saved["student"].items())


def test_the_learning_rates_are_the_schedules(tmp_path: Path) -> None:
    records = run(recipe(schedule="cosine"), tmp_path / "run").metrics
    assert [r["learning_rate"] for r in records] == pytest.approx([0.05, 0.0375, 0.0125])
