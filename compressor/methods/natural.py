"""Natural training: cross-entropy on the natural images, no attack, no teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from compressor.core.contracts import AttackMode, Batch, LabelsIn, Progress, SelectsBy, TeacherAt
from compressor.numerics.losses import cross_entropy

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Natural:
    """``L = CE(f(x), y)``, the mean over the batch."""

    teacher_at: ClassVar[TeacherAt] = "nothing"
    attack_mode: ClassVar[AttackMode] = "none"
    selects_by: ClassVar[SelectsBy] = "clean"
    recipe_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    @property
    def labels_in(self) -> LabelsIn:
        """In the only term."""
        return "loss"

    def inner(self, student: nn.Module, teacher: nn.Module | None, batch: Batch) -> None:
        """No inner maximisation: the images stay as they are."""

    def outer(
        self, student: nn.Module, teacher: nn.Module | None, batch: Batch, x_adv: Tensor, progress: Progress
    ) -> dict[str, Tensor]:
        """Return the cross-entropy of the logits on ``batch.x`` against the labels."""
        return {"total": cross_entropy(student(batch.x), batch.y, batch.label_smoothing).mean()}


METHOD = Natural
