"""A classifier: a network with its normalisation inside, built from a spec."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from compressor.core.contracts import ModelFamily
from compressor.core.errors import ClassMismatchError, UsageError
from compressor.core.registry import MODELS, unknown_name
from compressor.core.types import ModelSpec
from compressor.models.in_memory import family_in_memory, is_in_memory
from compressor.models.user_code import is_user_code, load_user_code
from compressor.numerics.randomness import derive_seed

_RAW: tuple[tuple[float, ...], tuple[float, ...]] = ((0.0,), (1.0,))


class Classifier(nn.Module):
    """Images in [0, 1] to logits: ``network((x - mean) / std)``.

    The normalisation is part of the model, so that a perturbation has one size wherever it is measured. Its buffers
    are not persistent: they come from the spec, and a state dict holds the network alone, under ``network.``.

    Attributes:
        spec: what the classifier was built from, the source's digest among it where the code is the user's own.
        network: takes normalised images.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: ModelSpec, network: nn.Module) -> None:
        super().__init__()
        self.spec = _with_source(spec)
        self.network = network
        mean, std = _RAW if spec.normalization is None else (spec.normalization.mean, spec.normalization.std)
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(1, -1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Float32 images ``[B, 3, H, W]`` in [0, 1] to logits ``[B, K]``."""
        # A classifier of raw images computes nothing here, so that its ONNX graph starts with the network.
        if self.spec.normalization is not None:
            x = (x - self.mean) / self.std
        return cast(Tensor, self.network(x))


def _with_source(spec: ModelSpec) -> ModelSpec:
    if not is_user_code(spec.name) or spec.source_sha256 is not None:
        return spec
    return replace(spec, source_sha256=load_user_code(spec.name).sha256)


def build_classifier(spec: ModelSpec, *, seed: int | None = None) -> Classifier:
    """A classifier with fresh weights, on the CPU, in training mode.

    Args:
        spec: what to build; its name is a family's, with that family's numbers after it.
        seed: fixes the weights and leaves torch's global generator as it was; ``None`` draws from the global one.

    Raises:
        UnknownNameError: no family has this name; near misses are suggested.
        UsageError: the numbers, the activation or the classes make no network.
    """
    family = family_of(spec.name)
    if spec.classes < 2:
        raise UsageError(f"a classifier needs 2 classes, and {spec.classes} were given.", "Check the dataset.")
    if seed is None:
        return Classifier(spec, family.build(spec))
    # Weights are drawn on the CPU: no other device's generator is touched, or needs to be restored.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "weights"))
        return Classifier(spec, family.build(spec))


def build_empty_network(spec: ModelSpec) -> nn.Module:
    """The spec's network on the meta device: names and shapes without memory, for ``load_state_dict(assign=True)``.

    Raises:
        UnknownNameError, UsageError: as ``build_classifier``.
    """
    family = family_of(spec.name)
    with torch.device("meta"):
        return family.build(spec)


def family_name(name: str) -> str:
    """The family in a model's name: what stands before a colon, else the longest family before a hyphen or the end.

    Raises:
        UnknownNameError: no family has this name; near misses are suggested.
    """
    members = MODELS.members()
    head, colon, _ = name.partition(":")
    fitting = [family for family in members if head == family or (not colon and head.startswith(f"{family}-"))]
    if not fitting:
        raise unknown_name(MODELS.kind, head, list(members))
    return max(fitting, key=len)


def family_of(name: str) -> ModelFamily:
    """The family that builds the model ``name``.

    Raises:
        UnknownNameError: no family has this name.
    """
    if is_in_memory(name):
        return family_in_memory(name)
    return cast(ModelFamily, MODELS.get(family_name(name)))


def count_parameters(module: nn.Module) -> int:
    """How many numbers training may change: all parameters, buffers not among them."""
    return sum(parameter.numel() for parameter in module.parameters())


def check_classes(spec: ModelSpec, class_count: int, dataset: str) -> None:
    """Refuse a model and a dataset that disagree about how many classes there are.

    Raises:
        ClassMismatchError: the counts differ.
    """
    if spec.classes != class_count:
        raise ClassMismatchError(
            f"the model {spec.name} has {spec.classes} classes, and the dataset {dataset} has {class_count}.",
            "Choose the dataset that the model was trained on with --data.",
        )
