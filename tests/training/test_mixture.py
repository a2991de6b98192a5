"""Training with extra data as a whole: it trains, it is recorded, it resumes to the bit, and it is refused in time."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from compressor.checkpoint import LoadedCheckpoint, load_checkpoint, save_checkpoint
from compressor.core.contracts import Split, SplitName
from compressor.core.errors import Interrupted, RecipeChangedError, UnreadableDataError, UsageError
from compressor.core.reporting import SilentReporter
from compressor.core.types import ModelSpec
from compressor.models.classifier import build_classifier
from compressor.runs.recipe import Recipe, resolve
from compressor.runs.run import Run
from compressor.runs.run_folder import RunFolder
from compressor.system.interruption import StopRequest
from compressor.training.configuration import RunConfig
from compressor.training.session import train
from tests.support.training import Watcher

MODEL, SIDE, CLASSES = "wideresnet-10-1", 16, 3


class Noise:
    """Few pictures, of brightness by class."""

    name = "noise"
    class_names = ("dark", "grey", "bright")
    image_size = SIDE

    def has(self, split: SplitName) -> bool:
        return split != "validation"

    def load(self, split: SplitName) -> Split:
        labels = np.arange(60, dtype=np.int64) % CLASSES
        return Split(pictures(labels, seed=len(split)).transpose(0, 3, 1, 2).copy(), labels)


def pictures(labels: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 60, (len(labels), SIDE, SIDE, 3))
    return (noise + 90 * labels[:, None, None, None]).astype(np.uint8)


def extra_file(path: Path, *, seed: int = 9, labelled: bool = True) -> Path:
    labels = np.arange(300) % CLASSES
    np.savez(path, image=pictures(labels, seed), **({"label": labels} if labelled else {}))
    return path


@pytest.fixture
def teacher(tmp_path: Path) -> LoadedCheckpoint:
    path = tmp_path / "teacher.safetensors"
    save_checkpoint(path, build_classifier(ModelSpec(MODEL, CLASSES, SIDE), seed=5), {})
    return load_checkpoint(path)


def recipe(method: str, **flags: object) -> Recipe:
    common = {
        "epochs": 2, "batch_size": 16, "image_size": SIDE, "attack_steps": 1, "validation_samples": 6,
        "precision": "fp32", "selection_steps": 1, "extra_fraction": 0.7,
    }  # fmt: skip
    return resolve(method, MODEL, None, {**common, **flags})


def run_training(
    settings: Recipe, folder: Path, extra: Path | None, teacher: LoadedCheckpoint | None = None, *,
    resume: bool = False, reporter: SilentReporter | None = None, stop: StopRequest | None = None,
) -> Run:  # fmt: skip
    request = RunConfig(settings, Noise(), RunFolder(folder), torch.device("cpu"), resume, extra_data=extra)
    return train(request, teacher, reporter=reporter or SilentReporter(), stop=stop or StopRequest())


def test_a_run_is_recorded_by_what_it_was_made_of_not_by_where_that_lay(
    tmp_path: Path, teacher: LoadedCheckpoint
) -> None:
    extra, watcher = extra_file(tmp_path / "secret-place.npz"), Watcher()
    run_training(recipe("rslad"), tmp_path / "run", extra, teacher, reporter=watcher)
    text = (tmp_path / "run" / "recipe.toml").read_text()
    recorded = tomllib.loads(text)
    assert recorded["extra_fraction"] == 0.7
    assert recorded["inputs"]["extra_sha256"] == hashlib.sha256(extra.read_bytes()).hexdigest()
    assert recorded["inputs"]["extra_images"] == 300
    assert "secret-place" not in text
    assert any("300 labelled images; they make up 11 of the 16 of a batch" in note for note in watcher.notes)


@pytest.mark.parametrize(("method", "after"), [("rslad", 6), ("sat", 2)])
def test_stopped_and_resumed_gives_the_same_bytes(
    method: str, after: int, tmp_path: Path, teacher: LoadedCheckpoint
) -> None:
    extra, stop = extra_file(tmp_path / "extra.npz", labelled=method == "sat"), StopRequest()
    given, settings = teacher if method == "rslad" else None, recipe(method)
    whole = run_training(settings, tmp_path / "whole", extra, given)
    with pytest.raises(Interrupted):
        run_training(settings, tmp_path / "parts", extra, given, reporter=Watcher(stop, after), stop=stop)
    parts = run_training(settings, tmp_path / "parts", extra, given, resume=True)
    assert parts.metrics == whole.metrics
    assert parts.last.read_bytes() == whole.last.read_bytes()


def test_the_label_cache_changes_no_bit(tmp_path: Path, teacher: LoadedCheckpoint) -> None:
    extra, settings, watcher = extra_file(tmp_path / "extra.npz"), recipe("rslad"), Watcher()
    cold = run_training(settings, tmp_path / "cold", extra, teacher)
    warm = run_training(settings, tmp_path / "warm", extra, teacher, reporter=watcher)
    assert cold.last.read_bytes() == warm.last.read_bytes()
    # 5 of 16 images are real, and all of these have been seen; the last batch of an epoch is as mixed.
    assert any("gave 31% of" in note or "gave 30% of" in note for note in watcher.notes)


def test_the_labels_of_extra_images_count(tmp_path: Path) -> None:
    right, wrong = extra_file(tmp_path / "right.npz"), tmp_path / "wrong.npz"
    labels = np.arange(300) % CLASSES
    np.savez(wrong, image=pictures(labels, 9), label=(labels + 1) % CLASSES)
    settings = recipe("natural", epochs=4, learning_rate=0.1)
    accuracy = [
        run_training(settings, tmp_path / path.stem, path).metrics[-1]["validation"]["clean_accuracy"]
        for path in (right, wrong)
    ]
    assert accuracy[0] > accuracy[1]


def test_another_file_is_refused_on_resume(tmp_path: Path, teacher: LoadedCheckpoint) -> None:
    run_training(recipe("rslad"), tmp_path / "run", extra_file(tmp_path / "extra.npz"), teacher)
    other = extra_file(tmp_path / "other.npz", seed=10)
    with pytest.raises(RecipeChangedError, match="extra_sha256"):
        run_training(recipe("rslad"), tmp_path / "run", other, teacher, resume=True)
    with pytest.raises(RecipeChangedError, match="extra_fraction"):
        run_training(
            recipe("rslad", extra_fraction=0.5), tmp_path / "run", tmp_path / "extra.npz", teacher, resume=True
        )
    # The same bytes under another name are the same input.
    (tmp_path / "extra.npz").rename(tmp_path / "moved.npz")
    run_training(recipe("rslad"), tmp_path / "run", tmp_path / "moved.npz", teacher, resume=True)


def test_only_methods_that_use_no_label_take_unlabelled_images(tmp_path: Path, teacher: LoadedCheckpoint) -> None:
    extra = extra_file(tmp_path / "extra.npz", labelled=False)
    for method in ("sat", "ard"):  # in the loss; in the attack alone
        with pytest.raises(UnreadableDataError, match="the method needs labels"):
            run_training(recipe(method), tmp_path / "run", extra, teacher)
    assert not (tmp_path / "run").exists()
    run_training(recipe("rslad", epochs=1), tmp_path / "run", extra, teacher)


def test_a_fraction_without_data_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file is named"):
        run_training(recipe("sat"), tmp_path / "run", None)
    assert not (tmp_path / "run").exists()
