"""The stages of a run: train, attack, export, verify; each can be entered again and does what is left."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cli.output.console import Output
from cli.output.tables import show_report
from cli.stages.evaluation import (
    EVALUATION_SEED,
    CheckpointChoice,
    checkpoints_of,
    default_samples,
    evaluate_checkpoint,
    known_evaluations,
    test_images,
)
from cli.stages.inputs import Inputs, decoding_shown
from compressor.checkpoint import LoadedCheckpoint
from compressor.core.contracts import Dataset
from compressor.evaluation.evaluate import Report
from compressor.evaluation.suites import get_suite
from compressor.runs.recipe import Recipe, resolve
from compressor.runs.run_folder import RunFolder, default_run_path
from compressor.system import launch
from compressor.system.interruption import StopRequest
from compressor.system.sizes import parse_size
from compressor.training.session import (
    DEFAULT_LABEL_CACHE_LIMIT,
    TrainingRequest,
    TrainingResult,
    check_request,
    train,
)


@dataclass(frozen=True)
class Extras:
    """What a training is told beside its recipe: it changes no result.

    Attributes:
        label_cache_limit: bytes that a full label cache may take; 0 keeps none.
        profile: whether to write where the time went.
    """

    label_cache_limit: int = DEFAULT_LABEL_CACHE_LIMIT
    profile: bool = False

    @classmethod
    def parse(cls, label_cache_limit: str, *, profile: bool) -> Extras:
        """From the options' text.

        Raises:
            UsageError: the limit is no size.
        """
        return cls(parse_size(label_cache_limit), profile)


@dataclass(frozen=True)
class Trained:
    """A run whose training is done."""

    recipe: Recipe
    run: RunFolder
    dataset: Dataset
    result: TrainingResult

    def to_json(self, report: Report) -> dict[str, Any]:
        """The fields that ``train`` and ``distill`` share."""
        return {
            "run": str(self.run.path),
            "checkpoint": str(self.run.best),
            "best": str(self.run.best),
            "last": str(self.run.last),
            "best_epoch": self.result.best_epoch,
            "metrics": str(self.run.metrics),
            "evaluation": report.to_json(),
            "evaluations": {"best": str(self.run.evaluation), "last": _path_or_none(self.run.last_evaluation)},
        }


def make_recipe(method: str, model: str, file: Path | None, flags: Mapping[str, Any], dataset_name: str) -> Recipe:
    """The resolved recipe; digits are never flipped unless the recipe asks for it."""
    implied = {"augmentation": "crop"} if dataset_name == "digits" else {}
    return resolve(method, model, file, flags, implied=implied)


def run_folder(recipe: Recipe, dataset: Dataset, run: Path | None) -> RunFolder:
    """The folder asked for, or the default one."""
    return RunFolder(run or default_run_path(recipe.method, recipe.model, dataset.name, recipe.seed))


def check_before_training(dataset: Dataset, suite: str, folder: RunFolder, *, resume: bool) -> None:
    """Raise now what would otherwise stop the run after hours of training."""
    get_suite(suite)
    folder.refuse_unless_enterable(resume=resume)
    for split in ("train", "test"):
        if not dataset.has(split):
            dataset.load(split)  # says what is missing, and the way out


def train_run(
    recipe: Recipe,
    dataset: Dataset,
    inputs: Inputs,
    teacher: LoadedCheckpoint | None,
    *,
    run: Path | None,
    resume: bool,
    extras: Extras,
    output: Output,
    stop: StopRequest,
) -> Trained:
    """Train, or go on training, in a run folder.

    Args:
        recipe: what to do.
        dataset: what to train on.
        inputs: where to compute.
        teacher: settled, or None.
        run: the folder, or None for the default one.
        resume: whether the folder may exist.
        extras: see there.
        output: told of progress.
        stop: asked after every step.
    """
    folder = run_folder(recipe, dataset, run)
    request = TrainingRequest(
        recipe, dataset, folder, inputs.device(), resume, extras.label_cache_limit, extras.profile, inputs.extra_data
    )
    check_request(request, has_teacher=teacher is not None)
    # The processes of one launch share the folder; the first holds it for all.
    with decoding_shown(output, stop), folder.lock() if launch.rank() == 0 else nullcontext():
        result = train(request, teacher, reporter=output, stop=stop)
    return Trained(recipe, folder, dataset, result)


def evaluate_run(
    trained: Trained,
    suite: str,
    samples: int | None,
    *,
    wanted: CheckpointChoice = "best",
    device: torch.device,
    output: Output,
    stop: StopRequest,
) -> Report:
    """Attack a run's best checkpoint on test images, or its best and last, write ``evaluation.json`` and print tables.

    Returns:
        The best checkpoint's report.
    """
    samples = samples or default_samples(suite)
    images = test_images(trained.dataset, samples, EVALUATION_SEED, output=output, stop=stop)
    known, reports = known_evaluations(trained.run), {}
    for which in checkpoints_of(wanted):
        record = evaluate_checkpoint(
            trained.run, which, images, trained.recipe.threat, suite,
            known=known, device=device, output=output, stop=stop,
        )  # fmt: skip
        known.append(record)
        reports[which] = record.report
        show_report(
            record.report, f"{trained.recipe.model}, {which} checkpoint (epoch {record.measured.epoch})", output
        )
    return reports["best"]


def _path_or_none(path: Path) -> str | None:
    return str(path) if path.is_file() else None
