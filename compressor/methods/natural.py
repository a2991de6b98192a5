"""Natural training: cross-entropy on the natural images, no attack, no teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from compressor.core.contracts import Batch, LabelsIn, Progress, TeacherAt
from compressor.methods._attacks import WithoutAttack
from compressor.numerics.losses import cross_entropy

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Natural(WithoutAttack):
    """``L = CE(f(x), y)``, the mean over the batch."""

    teacher_at: ClassVar[TeacherAt] = "nothing"
    labels_in: ClassVar[LabelsIn] = "loss"  # in the only term

    def outer(
        self, student: nn.Module, teacher: nn.Module | None, batch: Batch, x_adv: Tensor, progress: Progress
    ) -> dict[str, Tensor]:
        """Return the cross-entropy of the logits on ``batch.x`` against the labels."""
        return {"total": cross_entropy(student(batch.x), batch.y, batch.label_smoothing).mean()}


METHOD = Natural
