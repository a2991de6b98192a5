"""What ``test_processes`` runs in each of two processes: one argument, the folder for the runs."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from compressor.checkpoint import load_checkpoint, save_checkpoint
from compressor.core.contracts import Dataset, Split
from compressor.core.errors import Interrupted
from compressor.core.types import DatasetSpec, ModelSpec
from compressor.data.datasets import open_dataset
from compressor.models.classifier import build_classifier
from compressor.runs.recipe import Recipe, resolve
from compressor.runs.run_folder import RunFolder
from compressor.system import launch
from compressor.system.interruption import StopRequest
from compressor.system.process_group import leave_process_group
from compressor.training.configuration import RunConfig
from compressor.training.preparation import training_images
from compressor.training.session import train
from tests.support.training import Watcher

MODEL = "wideresnet-10-1"
# One step of each: without a teacher or with, attacked in eval or train mode, forwards whose result is not used, and
# what goes on top: a direction for each share, averages that all processes hold alike.
STEPS: dict[str, dict[str, object]] = {
    "natural": {},
    "sat": {},
    "rslad": {},
    "trades": {},
    "iad": {"method_settings": {"begin": 0.0}},
    "adaad": {},
    "sat-awp-ema": {"awp_gamma": 0.05, "awp_warmup": 0.0, "weight_average": "ema", "ema_warmup": 0.0},
    "rslad-swa": {"weight_average": "swa"},
}


def method_of(step: str) -> str:
    """The method in a step's name."""
    return step.partition("-")[0]


def settings_and_images(method: str, **settings: object) -> tuple[Recipe, Split]:
    """The recipe of a run, and the digits that it trains on."""
    common = {
        "epochs": 1, "batch_size": 32, "image_size": 16, "attack_steps": 2, "selection_steps": 2, "precision": "fp32",
        "augmentation": "crop", "train_samples": 32, "validation_samples": 20,
    }  # fmt: skip
    recipe = resolve(method, MODEL, None, {**common, **settings})
    return recipe, training_images(_digits(), recipe)[0]


def run(
    folder: Path, name: str, method: str, *, resume: bool = False, stop_after: int = 0, **settings: object
) -> list[str]:
    """Train on a few digits, and return the notes."""
    recipe, _ = settings_and_images(method, **settings)
    has_teacher = recipe.build_method().teacher_at != "nothing"
    teacher = load_checkpoint(folder / "teacher.safetensors") if has_teacher else None
    request = RunConfig(recipe, _digits(), RunFolder(folder / name), torch.device("cpu"), resume)
    stop = StopRequest()
    watcher = Watcher(stop if stop_after else None, stop_after)
    train(request, teacher, reporter=watcher, stop=stop)
    return watcher.notes


def _digits() -> Dataset:
    return open_dataset(DatasetSpec.parse("digits"), image_size=16)


def make_teacher(folder: Path) -> None:
    save_checkpoint(folder / "teacher.safetensors", build_classifier(ModelSpec(MODEL, 10, 16), seed=5), {})


def main(folder: Path) -> None:
    rank = launch.rank()
    for step, settings in STEPS.items():
        run(folder, f"step-{step}", method_of(step), learning_rate=1.0, **settings)
    longer = {"epochs": 2, "train_samples": 128}
    run(folder, "whole", "rslad", **longer)
    try:
        # Process 1 alone is told to stop: both must, at the same step.
        run(folder, "parts", "rslad", stop_after=3 if rank == 1 else 0, **longer)
    except Interrupted:
        (folder / f"interrupted-{rank}").touch()
    run(folder, "parts", "rslad", resume=True, **longer)
    notes = run(folder, "again", "rslad", **longer)
    run(folder, "warm", "sat", attack_warm_start=True, **longer)
    run(folder, "accumulated", "sat", accumulation=2, **longer)
    if rank == 0:
        (folder / "notes.txt").write_text("\n".join(notes))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
    leave_process_group()
