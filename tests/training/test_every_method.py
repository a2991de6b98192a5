"""Every registered method, from one loop: it trains in a few steps, its loss falls, and it resumes to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from compressor.checkpoint import LoadedCheckpoint, load_checkpoint
from compressor.core.contracts import Split, SplitName
from compressor.core.errors import Interrupted, UsageError
from compressor.core.registry import METHODS
from compressor.core.reporting import SilentReporter
from compressor.runs.recipe import Recipe, resolve
from compressor.runs.run import Run
from compressor.runs.run_folder import RunFolder
from compressor.system.interruption import StopRequest
from compressor.training.configuration import RunConfig
from compressor.training.session import train

MODEL = "wideresnet-10-1"


class Stripes:
    """Three classes that a small network soon tells apart: horizontal, vertical and plain pictures."""

    name = "stripes"
    class_names = ("horizontal", "vertical", "plain")
    image_size = 16

    def has(self, split: SplitName) -> bool:
        return split != "validation"

    def load(self, split: SplitName) -> Split:
        rng = np.random.default_rng({"train": 0, "test": 1, "validation": 2}[split])
        labels = np.arange(180) % 3
        base = np.zeros((3, 3, 16, 16))
        base[0, :, ::4], base[1, :, :, ::4], base[2] = 200, 200, 50
        noise = rng.integers(0, 50, (180, 3, 16, 16))
        return Split((base[labels] + noise).astype(np.uint8), labels.astype(np.int64))


class StopsAfter(SilentReporter):
    """Asks to stop after some steps."""

    def __init__(self, stop: StopRequest, steps: int) -> None:
        self._stop, self._left = stop, steps

    def advance(self, done: int, total: int, detail: str = "") -> None:
        self._left -= 1
        if self._left == 0:
            self._stop.signum = 15


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
    reporter = StopsAfter(stop, stop_after) if stop_after else SilentReporter()
    request = RunConfig(settings, Stripes(), RunFolder(folder), torch.device("cpu"), resume)
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
