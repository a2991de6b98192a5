"""``train`` and ``distill``: a run from Python, with the names and the defaults of the command line's options."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypedDict, Unpack

from torch import nn

from compressor.api.datasets import Data
from compressor.api.inputs import Inputs, allow_model, model_source
from compressor.api.planning import (
    TrainingRequest,
    open_inputs,
    plan_distillation,
    plan_training,
    settle_teacher,
    train_run,
)
from compressor.core.reporting import EventReporter, OnEvent
from compressor.core.types import eps_text
from compressor.models.in_memory import keep_module
from compressor.runs.recipe import Recipe
from compressor.runs.run import Run
from compressor.system.files import AnyPath, as_path
from compressor.system.interruption import StopRequest
from compressor.system.sizes import parse_size
from compressor.training.teacher_file import TeacherRequest


class TrainingSettings(TypedDict, total=False):
    """What ``train`` and ``distill`` take beside models and method; all of it is optional.

    Attributes:
        data: a dataset's name, a dataset, a pair of training images and labels, or pairs by the names of splits.
        data_dir: where downloaded datasets lie.
        download: whether an absent dataset is fetched (default: no).
        image_size: side of the square images, in pixels.
        run: the run folder (default: runs/METHOD-MODEL-DATASET-sSEED).
        resume: whether the run folder may exist, and is then gone on with (default: no).
        recipe: a TOML file, the name of a recipe that comes along, or fields of a recipe by name.
        epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: the largest of SGD.
        attack_steps: steps of the inner maximisation.
        warm_start: whether each image's attack begins where it ended an epoch ago.
        schedule: ``milestones``, ``cosine`` or ``one-cycle``.
        weight_average: ``none``, ``ema`` or ``swa``.
        ema_decay: of ``ema``.
        awp: how far weights are moved against the loss, relative to their norm.
        label_smoothing: the share of each label that is spread over all classes.
        train_samples: how many training images, drawn by seed (default: all).
        extra_data: an .npz file of generated images.
        extra_fraction: how much of each batch comes from it.
        eps: the perturbation's size, such as ``"8/255"`` or ``8 / 255``.
        seed: names every random number.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps`` (default: auto).
        threads: of torch on the CPU (default: all that this process may use).
        precision: ``auto``, ``fp32`` or ``bf16``: of the frozen teacher and of the copy that is attacked.
        outer_precision: ``fp32``, ``bf16`` or ``fp16``: of the passes that change the weights.
        accumulate: in how many passes a batch is worked through.
        sync_batchnorm: whether batch statistics are over all processes (GPUs only).
        compile: whether the passes that change the weights are compiled.
        label_cache_limit: size of the label cache, such as ``"8GB"``; ``"0"`` keeps none (default: 8GB).
        profile: whether profile.json is written (default: no).
    """

    data: Data | None
    data_dir: AnyPath | None
    download: bool
    image_size: int | None
    run: AnyPath | None
    resume: bool
    recipe: AnyPath | Mapping[str, Any] | None
    epochs: int | None
    batch_size: int | None
    learning_rate: float | None
    attack_steps: int | None
    warm_start: bool | None
    schedule: str | None
    weight_average: str | None
    ema_decay: float | None
    awp: float | None
    label_smoothing: float | None
    train_samples: int | None
    extra_data: AnyPath | None
    extra_fraction: float | None
    eps: str | float | None
    seed: int | None
    device: str
    threads: int | None
    precision: str | None
    outer_precision: str | None
    accumulate: int | None
    sync_batchnorm: bool | None
    compile: bool | None
    label_cache_limit: str
    profile: bool


_OTHER_NAMES = {"warm_start": "attack_warm_start", "awp": "awp_gamma", "accumulate": "accumulation"}
"""Settings of ``TrainingSettings`` that a recipe knows by another name."""


def train(
    *,
    model: str | nn.Module | None = None,
    method: str | None = None,
    on_progress: OnEvent | None = None,
    **settings: Unpack[TrainingSettings],
) -> Run:
    """Train a model without a teacher, into a run folder.

    Args:
        model: a model's name (default: resnet18); or a module in memory, of which a copy is trained from its present
            weights. The run records it as ``module:CLASS-DIGEST``.
        method: ``sat`` (default), ``trades``, ``mart`` or ``natural``.
        on_progress: called with each ``Event``. What it raises ends the training; ``resume=True`` goes on from what
            was saved last.
        settings: see ``TrainingSettings``.

    Returns:
        The run: ``best`` and ``last`` checkpoint, ``recipe``, ``metrics``.

    Raises:
        CompressError: the data or the settings cannot be used, the run exists, or the loss is no longer finite.

    Example:
        >>> from compressor import train
        >>> run = train(model="mobilenetv2-0.25", method="natural", data="digits", image_size=8,
        ...             run="runs/digits", epochs=1, train_samples=128)
        >>> run.best.name, run.metrics[0]["epoch"]
        ('best.safetensors', 1)
    """
    request = make_request(model=model, method=method, teacher=None, **settings)
    reporter = EventReporter(on_progress)
    config = plan_training(request, reporter, splits=("train",))
    return train_run(config, None, reporter=reporter, stop=StopRequest())


def distill(
    teacher: AnyPath | nn.Module | Run,
    *,
    student: str | nn.Module | None = None,
    method: str | None = None,
    teacher_model: str | nn.Module | None = None,
    teacher_normalization: str | None = None,
    teacher_activation: str | None = None,
    on_progress: OnEvent | None = None,
    **settings: Unpack[TrainingSettings],
) -> Run:
    """Distil a robust teacher into a student, into a run folder.

    Attacks, export and verification are calls of their own.

    Args:
        teacher: a checkpoint, a run (its best checkpoint), or a module in memory that takes images in [0, 1]. Of a
            module a copy is asked; the run records its structure and tensors as a digest.
        student: a model's name (default: mobilenetv2); or a module in memory, as for ``train``.
        method: a training method with a teacher (default: rslad).
        teacher_model: the teacher's architecture, where its keys do not tell; or a module of that architecture.
        teacher_normalization: ``none``, ``cifar10``, ``cifar100`` or ``half`` (default: measured).
        teacher_activation: ``relu`` or ``silu`` (default: measured).
        on_progress: called with each ``Event``; as for ``train``.
        settings: see ``TrainingSettings``.

    Returns:
        The run: ``best`` and ``last`` checkpoint, ``recipe``, ``metrics``.

    Raises:
        CompressError: the teacher, the data or the settings cannot be used, the run exists, or the loss is no longer
            finite.

    Example:
        >>> from compressor import distill, train
        >>> teacher = train(model="mobilenetv2-0.25", method="natural", data="digits", image_size=8,
        ...                 run="runs/teacher", epochs=1, train_samples=128)
        >>> run = distill(teacher, student="mobilenetv2-0.25", method="kd", data="digits",
        ...               run="runs/student", epochs=1, train_samples=128)
        >>> run.recipe.method
        'kd'
    """
    allow_model(teacher_model)
    request = make_request(
        model=student,
        method=method,
        teacher=TeacherRequest(model_source(teacher), teacher_model, teacher_normalization, teacher_activation),
        **settings,
    )
    reporter = EventReporter(on_progress)
    opened = open_inputs(request, reporter)
    config = plan_distillation(request, opened, reporter, splits=("train",))
    settled = settle_teacher(request, opened, [config], reporter)
    return train_run(config, settled, reporter=reporter, stop=StopRequest())


def make_request(
    *,
    model: str | nn.Module | None,
    method: str | None,
    teacher: TeacherRequest | None,
    **settings: Unpack[TrainingSettings],
) -> TrainingRequest:
    """Put a request together from the arguments of ``train`` and ``distill``; the commands have them as options.

    Raises:
        TypeError: an argument that does not exist.
        UsageError: the size of the label cache is none.
    """
    given: dict[str, Any] = dict(settings)
    if unknown := sorted(given.keys() - TrainingSettings.__annotations__.keys()):
        raise TypeError(f"unexpected argument {unknown[0]!r}; see TrainingSettings")
    allow_model(model)
    recipe = given.get("recipe")
    named = {_OTHER_NAMES.get(name, name): value for name, value in given.items()}
    named |= {"method": method, "model": keep_module(model) if isinstance(model, nn.Module) else model}
    if named.get("eps") is not None:
        named["eps"] = eps_text(named["eps"])
    fields = {field.name: named.get(field.name) for field in dataclasses.fields(Recipe)}
    return TrainingRequest(
        inputs=Inputs(
            given.get("data"),
            as_path(given.get("data_dir")),
            given.get("download", False),
            given.get("device", "auto"),
            given.get("threads"),
            as_path(given.get("extra_data")),
        ),
        settings={**(recipe if isinstance(recipe, Mapping) else {})}
        | {name: value for name, value in fields.items() if value is not None},
        recipe_file=None if isinstance(recipe, Mapping) else as_path(recipe),
        teacher=teacher,
        run=as_path(given.get("run")),
        resume=given.get("resume", False),
        label_cache_limit=parse_size(given.get("label_cache_limit", "8GB")),
        profile=given.get("profile", False),
    )
