"""IGDM (Lee et al., 2024): AdaAD, and the student's input gradient follows the teacher's, as a difference of logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from compressor.core.contracts import AttackMode, Batch, LabelsIn, Objective, Progress, SelectsBy, TeacherAt
from compressor.methods._terms import (
    KLReduction,
    check_range,
    check_reduction,
    reduce_kl,
    teacher_of,
    teacher_student_kl_objective,
)
from compressor.numerics.losses import kl_divergence

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class IGDM:
    """``L = KL(T(x + d) || S(x + d)) + alpha e / E KL(T(x + d) - T(x - d) || S(x + d) - S(x - d))``, ``d = x' - x``.

    x' is AdaAD's. The second KL is between softmaxes of logit differences: by Taylor's theorem such a difference is the
    input gradient along d, twice. Its weight grows with the epoch e of E, from 1.

    Source: Lee et al. 2024, "Indirect Gradient Matching for Adversarial Robust Distillation", eq. 10, and its released
    code: x - d is not clamped to [0, 1]; no gradient to the teacher in the loss; the student's forwards are x + d, then
    x - d, and none on natural images; the mean over images. One later release has the attack's step and radius swapped:
    the recipe's own 2/255 and 8/255 are used here.

    Attributes:
        alpha: the second term's weight at the end, at least 0; 1 on CIFAR-10, 10 on CIFAR-100.
        reduction: of both KL; see ``KLReduction``.
    """

    alpha: float = 1.0
    reduction: KLReduction = "batchmean"

    teacher_at: ClassVar[TeacherAt] = "adversarial"
    attack_mode: ClassVar[AttackMode] = "eval"
    selects_by: ClassVar[SelectsBy] = "robust"
    recipe_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"attack_start": "gaussian", "attack_start_scale": 0.001, "weight_decay": 5e-4}
    )

    def __post_init__(self) -> None:
        check_range(self.alpha, "alpha", "igdm", 0, float("inf"), "1 on CIFAR-10, 10 on CIFAR-100")
        check_reduction(self.reduction, "igdm")

    @property
    def labels_in(self) -> LabelsIn:
        """Nowhere."""
        return "nothing"

    def inner(self, student: nn.Module, teacher: nn.Module | None, batch: Batch) -> Objective:
        """Per-image ``KL(T(x') || S(x'))`` in nats, to be maximised; both networks are differentiated."""
        return teacher_student_kl_objective(teacher_of(teacher, "igdm"), student)

    def outer(
        self, student: nn.Module, teacher: nn.Module | None, batch: Batch, x_adv: Tensor, progress: Progress
    ) -> dict[str, Tensor]:
        """Return ``adversarial``, ``gradient`` and ``total``; the forward on ``x + d`` comes first."""
        guide = teacher_of(teacher, "igdm")
        opposite = 2 * batch.x - x_adv
        ahead, behind = student(x_adv), student(opposite)
        with torch.no_grad():
            guide_ahead, guide_behind = guide(x_adv), guide(opposite)
        classes = ahead.shape[1]
        adversarial = reduce_kl(kl_divergence(guide_ahead, ahead), self.reduction, classes)
        gradient = reduce_kl(kl_divergence(guide_ahead - guide_behind, ahead - behind), self.reduction, classes)
        weight = self.alpha * (progress.epoch + 1) / progress.epochs
        return {"total": adversarial + weight * gradient, "adversarial": adversarial, "gradient": gradient}


METHOD = IGDM
