"""AdaAD (Huang et al., CVPR 2023): teacher and student meet at the adversarial image, where they differ most."""

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
class AdaAD:
    """``L = alpha KL(T(x') || S(x')) + (1 - alpha) KL(T(x) || S(x))``, ``x' = argmax KL(T(x') || S(x'))``.

    The teacher's answer follows the image through the attack, and is differentiated at every step: about the cost of
    attacking the teacher too.

    Source: Huang et al. 2023, "Boosting Accuracy and Robustness of Student Models via Adaptive Adversarial
    Distillation", eq. 7 and 8, and its released code: a Gaussian start, both networks in eval mode under attack, no
    gradient to the teacher in the loss; forwards natural, then adversarial, also where the natural term has no weight.

    Attributes:
        alpha: the weight of the adversarial term, in [0, 1]; 1 in the released code.
        reduction: of KL; see ``KLReduction``. The released CIFAR-10 script takes the mean over classes too, which is
            ``batchmean/10``; for CIFAR-100 it takes ``batchmean``.
    """

    alpha: float = 1.0
    reduction: KLReduction = "batchmean/10"

    teacher_at: ClassVar[TeacherAt] = "adversarial"
    attack_mode: ClassVar[AttackMode] = "eval"
    selects_by: ClassVar[SelectsBy] = "robust"
    recipe_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"attack_start": "gaussian", "attack_start_scale": 0.001, "weight_decay": 5e-4}
    )

    def __post_init__(self) -> None:
        check_range(self.alpha, "alpha", "adaad", 0, 1, "1")
        check_reduction(self.reduction, "adaad")

    @property
    def labels_in(self) -> LabelsIn:
        """Nowhere."""
        return "nothing"

    def inner(self, student: nn.Module, teacher: nn.Module | None, batch: Batch) -> Objective:
        """Per-image ``KL(T(x') || S(x'))`` in nats, to be maximised; both networks are differentiated."""
        return teacher_student_kl_objective(teacher_of(teacher, "adaad"), student)

    def outer(
        self, student: nn.Module, teacher: nn.Module | None, batch: Batch, x_adv: Tensor, progress: Progress
    ) -> dict[str, Tensor]:
        """Return ``adversarial``, ``natural`` (where it has a weight), ``total``; forwards: natural, adversarial."""
        guide = teacher_of(teacher, "adaad")
        natural_logits = student(batch.x)
        logits = student(x_adv)
        with torch.no_grad():
            target = guide(x_adv)
        adversarial = reduce_kl(kl_divergence(target, logits), self.reduction, target.shape[1])
        if self.alpha == 1:
            return {"total": adversarial, "adversarial": adversarial}
        with torch.no_grad():
            natural_target = guide(batch.x)
        natural = reduce_kl(kl_divergence(natural_target, natural_logits), self.reduction, target.shape[1])
        total = self.alpha * adversarial + (1 - self.alpha) * natural
        return {"total": total, "adversarial": adversarial, "natural": natural}


METHOD = AdaAD
