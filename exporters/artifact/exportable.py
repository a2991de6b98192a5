"""What can be exported: a classifier from a checkpoint, or a module in memory that comes from no file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import nn

from compressor.checkpoint import normalization_name
from compressor.core.types import ModelSpec

INSIDE = "inside the model"
"""What a claim says of the normalisation of a plain module: it takes images in [0, 1], and the rest is not recorded."""


class Exportable(Protocol):
    """A classifier with what is known of its origin, as a loaded checkpoint has it."""

    @property
    def classifier(self) -> nn.Module:
        """Takes float32 ``[B, C, H, W]`` in [0, 1] and gives logits ``[B, K]``."""
        ...

    @property
    def spec(self) -> ModelSpec:
        """Its name, classes and image size."""
        ...

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What its checkpoint records: recipe, teacher, threat, dataset."""
        ...

    @property
    def sha256(self) -> str | None:
        """Of its checkpoint's file; None where there is none."""
        ...


@dataclass(frozen=True, eq=False)
class ModuleInMemory:
    """An :class:`Exportable` that comes from no file.

    Attributes:
        classifier: on the CPU, in evaluation mode.
        spec: its name, classes and image size.
        is_plain: whether the module normalises images by itself, so that ``spec`` does not tell how.
        metadata: nothing is recorded.
        sha256: None: there is no file to name.
    """

    classifier: nn.Module
    spec: ModelSpec
    is_plain: bool
    metadata: Mapping[str, Any] = field(default_factory=dict)
    sha256: None = None


def normalization_of(model: Exportable) -> str:
    """What a claim says of the model's normalisation."""
    if isinstance(model, ModuleInMemory) and model.is_plain:
        return INSIDE
    return normalization_name(model.spec.normalization)
