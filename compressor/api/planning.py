"""From what a user asks for to runs that can begin: data opened, recipes resolved, the teacher settled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from compressor.api.inputs import Inputs, decoding_shown, default_data
from compressor.checkpoint import LoadedCheckpoint, load_checkpoint, normalization_name
from compressor.core.contracts import Dataset, SplitName
from compressor.core.errors import UsageError
from compressor.core.reporting import Reporter
from compressor.core.types import DatasetSpec
from compressor.runs.recipe import Recipe, foreign_settings, resolve
from compressor.runs.recipe_files import read_recipe_file, resolve_recipe_file
from compressor.runs.run import Run
from compressor.runs.run_folder import RunFolder, default_run_path
from compressor.system import launch
from compressor.system.interruption import StopRequest
from compressor.training.configuration import RunConfig, refuse_missing_teacher
from compressor.training.session import train
from compressor.training.teacher_file import TeacherRequest, read_teacher, settle_open_questions


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """What a user asks of one training, or of several that share everything but method and seed; see ``RunConfig``.

    Attributes:
        inputs: the data, and where to compute.
        settings: fields of the recipe.
        recipe_file: a TOML file, or the name of a recipe that comes along.
        teacher: the teacher; None where the method asks none.
        run: the run folder; None for the default one.
        within: the folder that holds the default one, if not ``runs``.
    """

    inputs: Inputs
    settings: Mapping[str, Any]
    recipe_file: Path | None
    teacher: TeacherRequest | None
    run: Path | None
    within: Path | None = None
    resume: bool
    label_cache_limit: int
    profile: bool


@dataclass(frozen=True)
class OpenedInputs:
    """What all runs of one request share, read once: the teacher, as far as its file tells, and the data."""

    teacher: LoadedCheckpoint
    dataset: Dataset
    device: torch.device
    recipe_file: Path | None


def plan_training(request: TrainingRequest, reporter: Reporter, *, splits: Sequence[SplitName]) -> RunConfig:
    """Plan a run without a teacher; the recipe is checked before any data is asked for.

    Args:
        request: what is asked for; its ``teacher`` is None.
        reporter: told of the data, and of settings that were made for another method.
        splits: those that the dataset must have.

    Raises:
        CompressError: the data or the settings cannot be used.
    """
    ready, recipe_file = request.inputs.ready("train"), resolve_recipe_file(request.recipe_file)
    spec = "" if ready else str(request.inputs.data or "cifar10")
    settings = dict(request.settings)
    if ready is not None and settings.get("image_size") is None:
        settings["image_size"] = ready.image_size
    name = ready.name if ready else DatasetSpec.parse(spec).name
    recipe = make_recipe("sat", "resnet18", recipe_file, settings, name)
    refuse_missing_teacher(recipe)
    if foreign := foreign_settings(recipe_file, recipe):
        reporter.warn(foreign)
    device = request.inputs.device()
    dataset = request.inputs.open(lambda: spec, recipe.image_size, reporter, pair_is="train")
    return _configure(request, recipe, dataset, device, splits)


def open_inputs(request: TrainingRequest, reporter: Reporter) -> OpenedInputs:
    """Read the teacher and open the data that goes with it.

    Raises:
        CompressError: either cannot be read.
    """
    if request.teacher is None:
        raise UsageError("there is no teacher to distil.", "Name the teacher's checkpoint, or use train.")
    wanted, device = request.settings.get("image_size"), request.inputs.device()
    recipe_file, ready = resolve_recipe_file(request.recipe_file), request.inputs.ready("train")
    if wanted is None and recipe_file is not None:
        wanted = read_recipe_file(recipe_file).get("image_size")
    if wanted is None and ready is not None:
        wanted = ready.image_size
    loaded = read_teacher(request.teacher, image_size=wanted)
    dataset = request.inputs.open(lambda: default_data(loaded), loaded.spec.image_size, reporter, pair_is="train")
    return OpenedInputs(loaded, dataset, device, recipe_file)


def plan_distillation(
    request: TrainingRequest, opened: OpenedInputs, reporter: Reporter, *, splits: Sequence[SplitName]
) -> RunConfig:
    """Plan a run with a teacher: refuse now what would otherwise stop it after hours of training.

    Raises:
        CompressError: the settings cannot be used, or the run folder cannot be entered.
    """
    settings = {**request.settings, "image_size": opened.teacher.spec.image_size}
    recipe = make_recipe("rslad", "mobilenetv2", opened.recipe_file, settings, opened.dataset.name)
    if foreign := foreign_settings(opened.recipe_file, recipe):
        reporter.warn(foreign)
    return _configure(request, recipe, opened.dataset, opened.device, splits)


def settle_teacher(
    request: TrainingRequest, opened: OpenedInputs, configs: Sequence[RunConfig], reporter: Reporter
) -> LoadedCheckpoint | None:
    """Settle, once for all runs, what the teacher's file leaves open.

    Returns:
        The teacher; None where no method asks it.
    """
    asking = [config for config in configs if config.needs_teacher]
    for config in configs:
        if not config.needs_teacher:
            reporter.note(f"the method {config.recipe.method} asks no teacher: {config.folder.path} trains without it")
    if not asking:
        return None
    known = (_settled_before(request, opened.teacher, config.folder) for config in asking)
    loaded = next((found for found in known if found is not None), opened.teacher)
    return settle_open_questions(loaded, opened.dataset, reporter=reporter, device=opened.device)


def train_run(config: RunConfig, teacher: LoadedCheckpoint | None, *, reporter: Reporter, stop: StopRequest) -> Run:
    """Train, or go on training, and hold the run folder meanwhile; a teacher is left out where the method asks none."""
    # The processes of one launch share the folder; the first holds it for all.
    with decoding_shown(reporter, stop), config.folder.lock() if launch.rank() == 0 else nullcontext():
        return train(config, teacher if config.needs_teacher else None, reporter=reporter, stop=stop)


def make_recipe(method: str, model: str, file: Path | None, settings: Mapping[str, Any], dataset_name: str) -> Recipe:
    """The resolved recipe; digits are never flipped unless the recipe asks for it."""
    implied = {"augmentation": "crop"} if dataset_name == "digits" else {}
    return resolve(method, model, file, settings, implied=implied)


def _configure(
    request: TrainingRequest, recipe: Recipe, dataset: Dataset, device: torch.device, splits: Sequence[SplitName]
) -> RunConfig:
    path = request.run or default_run_path(recipe.method, recipe.model, dataset.name, recipe.seed)
    folder = RunFolder(path if request.within is None else request.within / path.name)
    folder.refuse_unless_enterable(resume=request.resume)
    for split in splits:
        if not dataset.has(split):
            dataset.load(split)  # says what is missing, and the way out
    return RunConfig(
        recipe,
        dataset,
        folder,
        device,
        request.resume,
        request.label_cache_limit,
        request.profile,
        request.inputs.extra_data,
    )


def _settled_before(request: TrainingRequest, loaded: LoadedCheckpoint, folder: RunFolder) -> LoadedCheckpoint | None:
    """The teacher as an earlier start of the same run settled it, so that nothing is measured twice."""
    recorded = folder.recorded_inputs()
    if not loaded.open_questions or recorded.get("teacher_sha256") != loaded.sha256:
        return None
    teacher = request.teacher
    if teacher is None or not isinstance(teacher.source, Path) or not isinstance(teacher.model, str | None):
        return None
    for spec in loaded.open_questions:
        settled = normalization_name(spec.normalization), spec.activation
        if settled == (recorded.get("teacher_normalization"), recorded.get("teacher_activation")):
            return load_checkpoint(
                teacher.source,
                model=teacher.model,
                normalization=spec.normalization or "none",
                activation=spec.activation,
                image_size=spec.image_size,
            )
    return None
