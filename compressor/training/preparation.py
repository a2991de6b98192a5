"""A run made ready: its images opened, and what it depends on written down as digests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from compressor.checkpoint import LoadedCheckpoint, normalization_name
from compressor.core.contracts import Dataset, Split
from compressor.core.reporting import Reporter
from compressor.data.datasets import split_digest, take_balanced, training_splits
from compressor.data.extra_data import ExtraData, open_extra_data
from compressor.models.user_code import is_user_code, load_user_code
from compressor.runs.recipe import Recipe
from compressor.system.process_group import ProcessGroup
from compressor.training.configuration import RunConfig, refuse_missing_teacher
from compressor.training.mixture import describe_mixture


@dataclass(frozen=True)
class Prepared:
    """A run and everything that it is computed from.

    Attributes:
        config: the run.
        teacher: settled; None where the method asks none.
        training: the images that are trained on.
        validation: the images that select the best checkpoint.
        extra: generated images to mix in, or None.
        inputs: digests of the data, and how the teacher was settled, as the run folder records them.
    """

    config: RunConfig
    teacher: LoadedCheckpoint | None
    training: Split
    validation: Split
    extra: ExtraData | None
    inputs: dict[str, Any]


def prepare(
    config: RunConfig, teacher: LoadedCheckpoint | None, process_group: ProcessGroup, reporter: Reporter
) -> Prepared:
    """Open a run's images in every process, and enter its folder.

    Raises:
        UsageError: the method needs a teacher, and there is none.
        RunExistsError, RecipeChangedError: see ``RunFolder.start``.
    """
    if teacher is None:
        refuse_missing_teacher(config.recipe)
    with process_group.main_first():  # it decodes, and the others find the decoded pictures
        training, validation = training_images(config.dataset, config.recipe)
        extra = _open_extra(config, process_group.size, reporter)
    inputs = _inputs(config, training, teacher, extra)
    with process_group.main_first():
        description = {**config.recipe.to_dict(), "inputs": inputs}
        config.folder.start(description, resume=config.resume or not process_group.is_main)
    return Prepared(config, teacher, training, validation, extra, inputs)


def training_images(dataset: Dataset, recipe: Recipe) -> tuple[Split, Split]:
    """The training and validation images that the recipe asks for."""
    available = len(dataset.load("train"))
    wanted = min(recipe.train_samples or available, available)
    training, validation = training_splits(dataset, min(recipe.validation_samples, max(wanted // 10, 2)), recipe.seed)
    if recipe.train_samples and recipe.train_samples < len(training):
        training = take_balanced(training, recipe.train_samples, recipe.seed)
    if len(validation) > recipe.validation_samples:
        validation = take_balanced(validation, recipe.validation_samples, recipe.seed)
    return training, validation


def _open_extra(config: RunConfig, processes: int, reporter: Reporter) -> ExtraData | None:
    if config.extra_data is None:
        return None
    extra = open_extra_data(
        config.extra_data,
        image_size=config.recipe.image_size,
        classes=len(config.dataset.class_names),
        needs_labels=config.needs_labels,
    )
    reporter.note(describe_mixture(config.recipe, processes, extra))
    return extra


def _inputs(
    config: RunConfig, training: Split, teacher: LoadedCheckpoint | None, extra: ExtraData | None
) -> dict[str, Any]:
    inputs: dict[str, Any] = {
        "dataset": config.dataset.name,
        "train_sha256": split_digest(config.dataset, "train"),
        "train_images": len(training),
    }
    if is_user_code(config.recipe.model):
        inputs["source_sha256"] = load_user_code(config.recipe.model).sha256
    if extra is not None:
        inputs |= {"extra_sha256": extra.sha256, "extra_images": len(extra)}
    if teacher is not None:
        inputs |= {
            "teacher": teacher.spec.name,
            "teacher_sha256": teacher.sha256,
            "teacher_normalization": normalization_name(teacher.spec.normalization),
            "teacher_activation": teacher.spec.activation,
        }
    return inputs
