"""SAT, standard adversarial training (Madry et al. 2018): cross-entropy on PGD examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from compressor.core.contracts import Batch, LabelsIn, Progress, TeacherAt
from compressor.methods._attacks import UNIFORM_START, CrossEntropyAttack
from compressor.numerics.losses import cross_entropy

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class SAT(CrossEntropyAttack):
    """``min_f max_{x'} CE(f(x'), y)``, the mean over the batch; PGD from a uniform start.

    Source: Madry et al. 2018, eq. 2.1. The attack sees the model in eval mode, so that BatchNorm statistics come
    from the outer step's forward alone.
    """

    teacher_at: ClassVar[TeacherAt] = "nothing"
    labels_in: ClassVar[LabelsIn] = "loss"  # in the only term
    recipe_defaults: ClassVar[Mapping[str, Any]] = UNIFORM_START

    def outer(
        self, student: nn.Module, teacher: nn.Module | None, batch: Batch, x_adv: Tensor, progress: Progress
    ) -> dict[str, Tensor]:
        """Return the cross-entropy of the logits on ``x_adv`` against the labels."""
        return {"total": cross_entropy(student(x_adv), batch.y, batch.label_smoothing).mean()}


METHOD = SAT
