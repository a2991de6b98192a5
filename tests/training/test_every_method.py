"""Every registered method, from one loop: it trains in a few steps, its loss falls, and it resumes to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from compressor.checkpoint import LoadedCheckpoint, load_checkpoint
from compressor.core.errors import Interrupted, UsageError
from compressor.core.registry import METHODS
from compressor.core.reporting import SilentReporter
from compressor.runs.recipe import Recipe, resolve
from compressor.runs.run import Run
from compressor.runs.run_folder import RunFolder
from compressor.system.interruption import StopRequest
from compressor.training.configuration import RunConfig
from compressor.training.session import train
from tests.support.training import Stripes, Watcher

MODEL = "wideresnet-10-1"


def recipe(method: str, **flags: object) -> Recipe:
    common = {
        "epochs": 3, "batch_size": 12, "image_size": 16, "attack_steps": 2, "validation_samples": 24,
        "precision": "fp32", "selection_steps": 2, "learning_rate": 0.05, "augmentation": "none",
    }  # fmt: skip
    return resolve(method, MODEL, None, {**common, **flags})


def run(
    settings: Recipe, folder: Path, teacher: LoadedCheckpoint | None, *, resume: bool = False, stop_after: int = 0
) -> Run:
    stop = StopRequest()
    reporter = Watcher(stop, stop_after) if stop_after else SilentReporter()
    request = RunConfig(settings, Stripes(180), RunFolder(folder), torch.device("cpu"), resume)
    return train(request, teacher, reporter=reporter, stop=stop)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> LoadedCheckpoint:
    """One that has something to teach."""
    return load_checkpoint(run(recipe("sat"), tmp_path_factory.mktemp("teacher") / "run", None).best)


def needs_teacher(method: str) -> bool:
    return bool(METHODS.get(method).teacher_at != "nothing")


@pytest.mark.parametrize("method", sorted(METHODS.members()))
def test_trains_its_loss_falls_and_it_resumes_to_the_bit(
    method: str, tmp_path: Path, teacher: LoadedCheckpoint
) -> None:
    given = teacher if needs_teacher(method) else None
    # Where KL is a tenth of its mean, or less, strides are ten times as long.
    is_small = getattr(METHODS.get(method)(), "reduction", "batchmean") != "batchmean"
    settings = recipe(method, learning_rate=0.5 if is_small else 0.05)
    whole = run(settings, tmp_path / "whole", given)
    # A term that starts later would hide what the others do.
    terms = [name for name in whole.metrics[0]["loss"] if name != "total"] or ["total"]
    losses = [record["loss"][terms[0]] for record in whole.metrics]
    assert losses[-1] < 0.9 * losses[0]
    assert max(record["validation"]["clean_accuracy"] for record in whole.metrics) > 0.6

    with pytest.raises(Interrupted):
        run(settings, tmp_path / "parts", given, stop_after=18)
    parts = run(settings, tmp_path / "parts", given, resume=True)
    assert parts.metrics == whole.metrics
    assert parts.last.read_bytes() == whole.last.read_bytes()


@pytest.mark.parametrize("method", sorted(filter(needs_teacher, METHODS.members())))
def test_without_its_teacher_a_method_starts_nothing(method: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"the method {method} needs a teacher") as caught:
        run(recipe(method), tmp_path / "run", None)
    assert "--teacher" in caught.value.hint
    assert not (tmp_path / "run").exists()
