"""Puts a run's parts together: student, twin, teacher, label cache, optimizer, batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compressor.checkpoint import LoadedCheckpoint
from compressor.core.contracts import Method, Split
from compressor.core.reporting import Reporter
from compressor.frozen import FrozenTwin
from compressor.models.classifier import build_classifier
from compressor.numerics.augment import to_float_tensor, variant_count
from compressor.runs.choices import Choices, make_choices, read_choices, write_choices
from compressor.runs.recipe import Recipe
from compressor.system.process_group import ProcessGroup
from compressor.training.batches import BatchLoader
from compressor.training.configuration import RunConfig
from compressor.training.inner import InnerMaximisation
from compressor.training.loop import Trainer
from compressor.training.parallel import Parallel
from compressor.training.plan import count_shares
from compressor.training.preparation import Prepared
from compressor.training.recording import Inner, RecordedInner
from compressor.training.step.averaging import make_average
from compressor.training.step.optimizer import make_optimizer
from compressor.training.step.perturbations import Perturbations
from compressor.training.teaching.label_cache import LabelView, open_label_cache
from compressor.training.teaching.label_file import LabelKey
from compressor.training.teaching.soft_labels import SoftLabels
from compressor.training.teaching.teacher import FrozenTeacher
from compressor.training.timing import Stopwatch
from compressor.training.validator import Validator

_SAMPLE = 32


def assemble(
    prepared: Prepared, parallel: Parallel, saved: dict[str, Any] | None, reporter: Reporter
) -> tuple[Trainer, Choices]:
    """Make everything that the loop uses, on this process's device.

    Args:
        prepared: the run, its images and its teacher.
        parallel: the processes.
        saved: the run's saved state, of which the label cache's view is taken here; see ``Trainer.restore``.
        reporter: told what was chosen.
    """
    config, teacher, training = prepared.config, prepared.teacher, prepared.training
    recipe, device, process_group = config.recipe, parallel.device, parallel.process_group
    method = recipe.build_method()
    student = parallel.place(build_classifier(config.spec, seed=recipe.seed), recipe)
    original = None if teacher is None else teacher.classifier.to(device).to(memory_format=torch.channels_last)
    sample = to_float_tensor(torch.from_numpy(training.images[: _at_once(recipe, device, process_group)]).to(device))
    with process_group.main_first():
        choices = _choose(config, method, student, original, sample, writes=process_group.is_main)
    _tell(choices, recipe, reporter)

    frozen = soft_labels = None
    if teacher is not None and original is not None and choices.teacher is not None:
        frozen = FrozenTeacher(FrozenTwin(original, sample, choices.teacher))
        if method.teacher_at == "natural":
            key = _label_key(prepared, teacher, choices.teacher)
            soft_labels = _soft_labels(frozen, key, config.label_cache_limit, saved, reporter)
            process_group.wait()  # nobody writes while another still reads what is there
    forward, unsynchronised = parallel.wrap(student, recipe)
    watch = Stopwatch(device, profile=config.profile)
    batch_loader = BatchLoader(recipe, training, device, process_group, soft_labels, watch, prepared.extra)
    twin = None if choices.twin is None else FrozenTwin(student, sample, choices.twin)
    trainer = Trainer(
        recipe=recipe,
        method=method,
        student=student,
        average=make_average(student, recipe, batch_loader.images, process_group),
        forward=forward,
        unsynchronised=unsynchronised,
        twin=twin,
        inner=_inner(InnerMaximisation(recipe, method, student if twin is None else twin, frozen), twin, device),
        teacher=frozen,
        optimizer=make_optimizer(student, recipe),
        scaler=torch.amp.GradScaler(device.type, enabled=recipe.outer_precision == "fp16"),
        batch_loader=batch_loader,
        perturbations=_perturbations(recipe, training),
        validator=Validator(recipe, prepared.validation, device, process_group),
        device=device,
        process_group=process_group,
        watch=watch,
    )
    return trainer, choices


def _choose(
    config: RunConfig, method: Method, student: nn.Module, teacher: nn.Module | None, sample: Tensor, *, writes: bool
) -> Choices:
    """What an earlier start or process 0 chose, else what is chosen now and written down."""
    choices = read_choices(config.folder.choices)
    if choices is None:
        choices = make_choices(config.recipe, method, student, teacher, sample)
        if writes:
            write_choices(config.folder.choices, choices)
    return choices


def _at_once(recipe: Recipe, device: torch.device, process_group: ProcessGroup) -> int:
    """How many images the twin computes at once: few on a CPU, a whole share on a GPU."""
    return _SAMPLE if device.type == "cpu" else recipe.batch_size // count_shares(recipe, process_group.size)


def _tell(choices: Choices, recipe: Recipe, reporter: Reporter) -> None:
    chosen = {"attack on a frozen twin": choices.twin, "teacher": choices.teacher}
    parts = [f"{name} in {precision}" for name, precision in chosen.items() if precision]
    if parts:
        reporter.note(f"{', '.join(parts)}; outer step in {recipe.outer_precision}")


def _inner(inner: InnerMaximisation, twin: FrozenTwin | None, device: torch.device) -> Inner:
    """Recorded on a GPU where a twin is attacked: the student itself may draw, and change its statistics."""
    return RecordedInner(inner) if device.type == "cuda" and twin is not None and twin.folded else inner


def _perturbations(recipe: Recipe, training: Split) -> Perturbations | None:
    if not recipe.attack_warm_start:
        return None
    return Perturbations(len(training), training.images.shape[1], recipe.image_size, recipe.threat.radius)


def _label_key(prepared: Prepared, teacher: LoadedCheckpoint, precision: str) -> LabelKey:
    inputs, config = prepared.inputs, prepared.config
    image_size = config.recipe.image_size
    return LabelKey(
        teacher=inputs["teacher"],
        teacher_sha256=inputs["teacher_sha256"],
        normalization=inputs["teacher_normalization"],
        activation=inputs["teacher_activation"],
        precision=precision,
        dataset=config.dataset.name,
        train_sha256=inputs["train_sha256"],
        image_size=image_size,
        images=len(config.dataset.load("train")),
        variants=variant_count(image_size),
        classes=teacher.spec.classes,
    )


def _soft_labels(
    teacher: FrozenTeacher, key: LabelKey, limit: int, saved: dict[str, Any] | None, reporter: Reporter
) -> SoftLabels:
    """The teacher with its label cache; a resumed run counts on what it counted on before."""
    cache = open_label_cache(key, limit=limit)
    if cache is None:
        return SoftLabels(teacher)
    shape = key.images, key.variants
    if saved is None:
        view = LabelView.fresh(cache)
        if known := int(view.known.sum()):
            reporter.note(f"label cache: {known:,} of the teacher's {view.known.size:,} answers are there already")
    elif saved["label_view"] is None:
        view = LabelView(np.zeros(shape, dtype=np.bool_))
    else:
        view = LabelView.unpack(saved["label_view"].numpy().tobytes(), shape)
    return SoftLabels(teacher, cache, view)
