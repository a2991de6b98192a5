"""Models from files or from memory: read as far as they tell, and the rest settled by measuring."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from compressor.checkpoint import LoadedCheckpoint, fill_network, load_checkpoint, probe, read_state
from compressor.checkpoint.own_format import parse_own
from compressor.core.contracts import Dataset
from compressor.core.errors import UsageError
from compressor.core.reporting import Reporter
from compressor.core.types import ModelSpec
from compressor.data.datasets import take_balanced
from compressor.models.classifier import Classifier, check_classes
from compressor.models.in_memory import digest_of_module, is_in_memory, module_name, provide_module
from compressor.models.modes import module_mode
from compressor.system.files import sha256_file

_PROBE_IMAGES = 500
_IMAGE_SIZE = 32


@dataclass(frozen=True)
class TeacherRequest:
    """A model, and what the keys of a checkpoint may not tell; ``None`` means "find out".

    Attributes:
        source: a checkpoint file, or a module in memory that takes images in [0, 1].
        model: the name of its architecture, or a module of that architecture.
        normalization: of a checkpoint: ``none``, ``cifar10``, ``cifar100`` or ``half``.
        activation: of a checkpoint: ``relu`` or ``silu``.
    """

    source: Path | nn.Module
    model: str | nn.Module | None = None
    normalization: str | None = None
    activation: str | None = None


def read_teacher(request: TeacherRequest, *, image_size: int | None) -> LoadedCheckpoint:
    """Read a model as far as it and the user's options tell; questions may stay open.

    Raises:
        CompressError: unreadable, unsafe, unknown.
    """
    if isinstance(request.source, nn.Module):
        return load_module(request.source, image_size=image_size)
    if isinstance(request.model, nn.Module):
        return _load_into(request.source, request.model, image_size)
    return load_checkpoint(
        request.source,
        model=request.model,
        normalization=request.normalization,
        activation=cast(Any, request.activation),
        image_size=image_size,
    )


def load_module(module: nn.Module, *, image_size: int | None) -> LoadedCheckpoint:
    """Make a checkpoint of a module in memory: a copy of it, which the digest of its tensors and structure names.

    Args:
        module: takes images ``[B, C, H, W]`` in [0, 1], normalises them itself, and returns logits ``[B, K]``; it is
            left as it is.
        image_size: side of its images, in pixels (default: what a classifier records, else 32).

    Raises:
        UsageError: it does not give logits for an image of that size.
    """
    own = copy.deepcopy(module).cpu().eval()
    if isinstance(own, Classifier):
        own.spec = dataclasses.replace(own.spec, image_size=image_size or own.spec.image_size)
        return LoadedCheckpoint(own, own.spec, {}, digest_of_module(own), (), ())
    side = image_size or _IMAGE_SIZE
    spec = ModelSpec(module_name(module), _count_classes(own, side), side)
    classifier = Classifier(spec, own).eval()
    return LoadedCheckpoint(classifier, spec, {}, digest_of_module(module), (), ())


def _load_into(path: Path, module: nn.Module, image_size: int | None) -> LoadedCheckpoint:
    """Read a checkpoint whose network is a module that the user gives."""
    foreign = read_state(path)
    own = parse_own(path, foreign.metadata)
    if own is not None and is_in_memory(own[0].name):
        provide_module(own[0].name, module)
        return load_checkpoint(path, image_size=image_size)
    if own is not None:
        raise UsageError(f"{path} holds {own[0].name}, and a module was given.", "Leave the model out.")
    name, side = module_name(module), image_size or _IMAGE_SIZE
    provide_module(name, module)
    spec = ModelSpec(name, _count_classes(copy.deepcopy(module).cpu(), side), side)
    classifier = Classifier(spec, fill_network(spec, foreign.state)).eval()
    return LoadedCheckpoint(classifier, spec, {}, sha256_file(path), foreign.notes, ())


def _count_classes(module: nn.Module, side: int) -> int:
    """How many logits a module gives for a colour image."""
    try:
        with module_mode(module, training=False), torch.no_grad():
            logits: Any = module(torch.zeros(1, 3, side, side))
    except (RuntimeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"{type(module).__name__} cannot take images [B, 3, {side}, {side}] ({reason}).",
            "Give image_size, and a module that takes colour images in [0, 1].",
        ) from error
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or len(logits) != 1:
        shape = tuple(getattr(logits, "shape", ())) or type(logits).__name__
        raise UsageError(f"{type(module).__name__} gives {shape} for one image.", "It must return logits [B, K].")
    return int(logits.shape[1])


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
