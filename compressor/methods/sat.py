"""SAT, standard adversarial training (Madry et al. 2018): cross-entropy on PGD examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from compressor.core.contracts import AttackMode, Batch, LabelsIn, Objective, Progress, SelectsBy, TeacherAt
from compressor.methods._terms import cross_entropy_objective
from compressor.numerics.losses import cross_entropy

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class SAT:
    """``min_f max_{x'} CE(f(x'), y)``, the mean over the batch; PGD from a uniform start.

    Source: Madry et al. 2018, eq. 2.1. The attack sees the model in eval mode, so that BatchNorm statistics come
    from the outer step's forward alone.
    """

    teacher_at: ClassVar[TeacherAt] = "nothing"
    attack_mode: ClassVar[AttackMode] = "eval"
    selects_by: ClassVar[SelectsBy] = "robust"
    recipe_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"attack_start": "uniform", "attack_start_scale": 1.0}
    )

    @property
    def labels_in(self) -> LabelsIn:
        """In the only term."""
        return "loss"

    def inner(self, student: nn.Module, teacher: nn.Module | None, batch: Batch) -> Objective:
        """Per-image cross-entropy of the student's logits against the labels, to be maximised."""
        return cross_entropy_objective(student, batch)

    def outer(
        self, student: nn.Module, teacher: nn.Module | None, batch: Batch, x_adv: Tensor, progress: Progress
    ) -> dict[str, Tensor]:
        """Return the cross-entropy of the logits on ``x_adv`` against the labels."""
        return {"total": cross_entropy(student(x_adv), batch.y, batch.label_smoothing).mean()}


METHOD = SAT
