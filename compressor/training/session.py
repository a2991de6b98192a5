"""From a request to a trained checkpoint: opens data and teacher, enters the run folder, runs the loop, saves."""

from __future__ import annotations

import dataclasses
import gc
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from compressor.checkpoint import LoadedCheckpoint, load_checkpoint, normalization_name, probe, save_checkpoint
from compressor.core.contracts import Dataset, Split
from compressor.core.errors import UsageError
from compressor.core.reporting import Reporter
from compressor.core.types import ModelSpec
from compressor.data.datasets import split_digest, take_balanced, training_splits
from compressor.data.extra_data import ExtraData, check_extra_data, open_extra_data
from compressor.evaluation.quick import QuickAccuracy, measure
from compressor.models.classifier import build_empty_network, check_classes, count_parameters
from compressor.models.user_code import is_user_code, load_user_code
from compressor.runs.choices import Choices
from compressor.runs.recipe import Recipe
from compressor.runs.run_folder import RunFolder
from compressor.system import launch
from compressor.system.devices import uses_tf32
from compressor.system.files import write_json
from compressor.system.interruption import StopRequest
from compressor.system.memory import keep_freed_memory
from compressor.training.loop import State, Trainer
from compressor.training.mixture import check_mixture, describe_mixture
from compressor.training.parallel import Parallel
from compressor.training.plan import count_shares
from compressor.training.profile import profile
from compressor.training.setup import Settings, assemble
from compressor.training.teaching.teacher import teacher_warnings
from compressor.version import __version__

DEFAULT_LABEL_CACHE_LIMIT = 8 * 10**9

_PROBE_IMAGES = 500
_CHECK_IMAGES = 200
_CHECK_STEPS = 10
_SAMPLE = 16


@dataclass(frozen=True)
class TeacherRequest:
    """A teacher file, and what its keys may not tell; ``None`` means "find out"."""

    path: Path
    model: str | None = None
    normalization: str | None = None
    activation: str | None = None


@dataclass(frozen=True)
class TrainingRequest:
    """What a run needs beside its recipe; none of it changes what is computed, but for the teacher and the data."""

    recipe: Recipe
    dataset: Dataset
    run: RunFolder
    device: torch.device
    resume: bool = False
    label_cache_limit: int = DEFAULT_LABEL_CACHE_LIMIT
    profile: bool = False
    extra_data: Path | None = None


@dataclass(frozen=True)
class TrainingResult:
    """The two checkpoints of a finished run, and what validation said of each epoch."""

    best: Path
    last: Path
    best_epoch: int
    records: list[dict[str, Any]]


def read_teacher(request: TeacherRequest, *, image_size: int | None) -> LoadedCheckpoint:
    """Read a checkpoint as far as its file and the user's options tell; questions may stay open.

    Raises:
        CompressError: unreadable, unsafe, unknown.
    """
    return load_checkpoint(
        request.path,
        model=request.model,
        normalization=request.normalization,
        activation=cast(Any, request.activation),
        image_size=image_size,
    )


def settle_open_questions(
    loaded: LoadedCheckpoint, dataset: Dataset, *, reporter: Reporter, device: torch.device | None = None
) -> LoadedCheckpoint:
    """Settle, by measuring on training images, what a checkpoint's keys leave open.

    Args:
        loaded: the checkpoint; its classifier stays where it is.
        dataset: whose training images are used.
        reporter: told what was measured.
        device: where to measure; where the classifier is, unless given.

    Raises:
        ClassMismatchError: it has other classes than the dataset. AmbiguousCheckpointError: measuring did not tell.
    """
    for note in loaded.notes:
        reporter.note(note)
    check_classes(loaded.spec, len(dataset.class_names), dataset.name)
    if not loaded.open_questions:
        return loaded
    reporter.phase(f"Finding out how {loaded.spec.name} wants its images")
    sample = take_balanced(dataset.load("train"), _PROBE_IMAGES, seed=0)
    found = probe(loaded, torch.from_numpy(sample.images), torch.from_numpy(sample.labels), device=device)
    for measurement in found.measurements:
        reporter.note(f"{measurement.description}: {measurement.accuracy:.1%} of {measurement.samples} training images")
    reporter.note(f"chosen: {found.measurements[0].description}")
    return dataclasses.replace(loaded, classifier=found.classifier, spec=found.spec, open_questions=())


def train(
    request: TrainingRequest,
    teacher: LoadedCheckpoint | None,
    *,
    reporter: Reporter,
    stop: StopRequest,
) -> TrainingResult:
    """Train as the recipe says, or go on where the run folder stands.

    Under a launcher every process calls this; process 0 alone writes.

    Raises:
        CompressError: see ``RunFolder.start`` and ``Trainer.fit``. Interrupted: a signal came; the state is saved.
    """
    recipe, run = request.recipe, request.run
    spec = check_request(request, has_teacher=teacher is not None)
    parallel = Parallel.enter(request.device)
    with parallel.process_group.main_first():  # it decodes, and the others find the decoded pictures
        training, validation = training_images(request.dataset, recipe)
        extra = _open_extra(request, parallel.process_group.size, reporter)
    inputs = _inputs(request, training, teacher, extra)
    with parallel.process_group.main_first():
        run.start({**recipe.to_dict(), "inputs": inputs}, resume=request.resume or not parallel.process_group.is_main)

    saved = run.load_state()
    state = _restore_state(saved) if saved else State()
    if saved and state.epoch >= recipe.epochs and run.best.is_file() and run.last.is_file():
        reporter.note(f"training is done already: {run.path}")
        return TrainingResult(run.best, run.last, state.best_epoch + 1, state.records)
    reporter.note(
        f"{'model' if teacher is None else 'student'} {recipe.model}: "
        f"{count_parameters(build_empty_network(spec)):,} parameters; {len(training):,} training and "
        f"{len(validation):,} validation images; {recipe.method}, {recipe.threat}, seed {recipe.seed}"
    )
    settings = Settings(
        recipe, request.dataset, inputs, run, request.label_cache_limit, waits_for_gpu=request.profile, extra=extra
    )
    trainer, choices = assemble(settings, parallel, spec, teacher, training, validation, saved, reporter)
    if trainer.process_group.is_main:
        run.write_environment(environment(trainer.device, trainer.process_group.size))
    if trainer.teacher is not None and not saved:
        _look_at_teacher(trainer, validation, len(request.dataset.class_names), reporter)
    if saved:
        trainer.restore(saved)

    def save(state: State) -> None:
        if trainer.process_group.is_main:
            run.write_records(run.metrics, state.records)
            run.write_records(run.timings, state.timings)
            if request.profile:
                write_json(run.profile, profile(state.timings, trainer.watch.read()))
            run.save_state({"state": _state_dict(state), **trainer.snapshot()})

    def on_epoch(state: State, validation: QuickAccuracy) -> None:
        is_best = state.best_epoch == state.epoch - 1
        if trainer.process_group.is_main:
            metadata = checkpoint_metadata(request, inputs, choices, state.epoch, validation)
            save_checkpoint(run.last, trainer.average.model, metadata)
            if is_best:
                save_checkpoint(run.best, trainer.average.model, metadata)
        reporter.note(
            f"epoch {state.epoch}/{recipe.epochs}: validation clean {validation.clean:.1%}, "
            f"PGD-{recipe.selection_steps} {validation.robust:.1%}" + (" (best so far)" if is_best else "")
        )

    among = f" in {trainer.process_group.size} processes" if trainer.process_group.size > 1 else ""
    reporter.phase(f"Training {recipe.model} with {recipe.method}{among}")
    if trainer.device.type == "cpu":
        # Only now: what the start has freed goes back first. Traced graphs hold themselves, and wait for the collector.
        gc.collect()
        keep_freed_memory()
    trainer.fit(state, save=save, on_epoch=on_epoch, reporter=reporter, stop=stop)
    if (answers := trainer.batch_loader.soft_labels) is not None:
        asked, answered = trainer.process_group.sum([answers.asked, answers.answered])
        if asked:
            reporter.note(f"the label cache gave {answered / asked:.0%} of {asked:,.0f} soft labels")
    trainer.process_group.wait()  # what process 0 wrote is there for all
    return TrainingResult(run.best, run.last, state.best_epoch + 1, state.records)


def check_request(request: TrainingRequest, *, has_teacher: bool) -> ModelSpec:
    """Refuse, before anything is written, what can't be built, parted among the processes, or done on the device.

    Returns:
        The spec of the model to train.
    """
    recipe = request.recipe
    spec = ModelSpec(recipe.model, len(request.dataset.class_names), recipe.image_size)
    build_empty_network(spec)
    check_mixture(recipe, count_shares(recipe, launch.world_size()), has_data=request.extra_data is not None)
    if request.extra_data is not None:
        check_extra_data(request.extra_data, image_size=recipe.image_size, needs_labels=_needs_labels(recipe))
    if recipe.sync_batchnorm and request.device.type != "cuda":
        raise UsageError("BatchNorm can be synchronised between GPUs only.", "Leave --sync-batchnorm out.")
    if not has_teacher:
        refuse_missing_teacher(recipe)
    return spec


def refuse_missing_teacher(recipe: Recipe) -> None:
    """Refuse a method that asks a teacher, where there is none.

    Raises:
        UsageError: likewise.
    """
    if recipe.build_method().teacher_at != "nothing":
        raise UsageError(f"the method {recipe.method} needs a teacher.", "Use `compress distill --teacher FILE`.")


def checkpoint_metadata(
    request: TrainingRequest, inputs: dict[str, Any], choices: Choices, epoch: int, validation: QuickAccuracy
) -> dict[str, Any]:
    """What a checkpoint says of itself: no time and no path, so that equal work gives equal bytes."""
    return {
        "recipe": request.recipe.to_dict(),
        "choices": choices.to_dict(),
        "dataset": {
            "name": request.dataset.name,
            "class_names": list(request.dataset.class_names),
            "train_sha256": inputs["train_sha256"],
        },
        "threat": {"norm": request.recipe.norm, "eps": request.recipe.eps},
        "parent_sha256": inputs.get("teacher_sha256"),
        "epoch": epoch,
        "selection": {
            "split": "validation",
            "samples": validation.samples,
            "clean_correct": validation.clean_correct,
            "robust_correct": validation.robust_correct,
        },
    }


def environment(device: torch.device, processes: int) -> dict[str, Any]:
    """Versions, device, processes, threads, TF32: what it takes to judge a run. Nothing that names the machine."""
    return {
        "compress": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": platform.system(),
        "processor": platform.machine(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "processes": processes,
        "threads": torch.get_num_threads(),
        "tf32": uses_tf32(device),
    }


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


def _needs_labels(recipe: Recipe) -> bool:
    return recipe.build_method().labels_in != "nothing"


def _open_extra(request: TrainingRequest, processes: int, reporter: Reporter) -> ExtraData | None:
    if request.extra_data is None:
        return None
    extra = open_extra_data(
        request.extra_data,
        image_size=request.recipe.image_size,
        classes=len(request.dataset.class_names),
        needs_labels=_needs_labels(request.recipe),
    )
    reporter.note(describe_mixture(request.recipe, processes, extra))
    return extra


def _inputs(
    request: TrainingRequest, training: Split, teacher: LoadedCheckpoint | None, extra: ExtraData | None
) -> dict[str, Any]:
    """What the run depends on beside the recipe: digests, and how the teacher was settled."""
    inputs: dict[str, Any] = {
        "dataset": request.dataset.name,
        "train_sha256": split_digest(request.dataset, "train"),
        "train_images": len(training),
    }
    if is_user_code(request.recipe.model):
        inputs["source_sha256"] = load_user_code(request.recipe.model).sha256
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


def _look_at_teacher(trainer: Trainer, validation: Split, classes: int, reporter: Reporter) -> None:
    if trainer.teacher is None:
        return
    reporter.phase("Looking at the teacher")
    sample = take_balanced(validation, min(_CHECK_IMAGES, len(validation)), seed=0)
    started = time.monotonic()
    found = measure(
        trainer.teacher.classifier,
        torch.from_numpy(sample.images),
        torch.from_numpy(sample.labels),
        trainer.recipe.threat,
        steps=_CHECK_STEPS,
        seed=0,
        device=trainer.device,
        process_group=trainer.process_group,
    )
    seconds = time.monotonic() - started
    reporter.note(
        f"teacher on {found.samples} validation images: clean {found.clean:.1%}, "
        f"PGD-{_CHECK_STEPS} {found.robust:.1%}, mean soft-label entropy {found.entropy:.2f} nats ({seconds:.0f} s)"
    )
    for warning in teacher_warnings(found, classes):
        reporter.warn(warning)


def _state_dict(state: State) -> dict[str, Any]:
    return {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}


def _restore_state(saved: dict[str, Any]) -> State:
    state = State(**saved["state"])
    state.best = (float(state.best[0]), float(state.best[1]))
    return state
