"""IGDM (Lee et al., 2024): AdaAD, and the student's input gradient follows the teacher's, as a difference of logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from compressor.core.contracts import Batch, Progress
from compressor.methods._attacks import TeacherStudentAttack
from compressor.methods._terms import KLReduction, check_range, check_reduction, kl_term, teacher_of

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class IGDM(TeacherStudentAttack):
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

    def __post_init__(self) -> None:
        check_range(self.alpha, "alpha", "igdm", 0, float("inf"), "1 on CIFAR-10, 10 on CIFAR-100")
        check_reduction(self.reduction, "igdm")

    def outer(
        self, student: nn.Module, teacher: nn.Module | None, batch: Batch, x_adv: Tensor, progress: Progress
    ) -> dict[str, Tensor]:
        """Return ``adversarial``, ``gradient`` and ``total``; the forward on ``x + d`` comes first."""
        guide = teacher_of(teacher, "igdm")
        opposite = 2 * batch.x - x_adv
        ahead, behind = student(x_adv), student(opposite)
        with torch.no_grad():
            guide_ahead, guide_behind = guide(x_adv), guide(opposite)
        adversarial = kl_term(guide_ahead, ahead, self.reduction)
        gradient = kl_term(guide_ahead - guide_behind, ahead - behind, self.reduction)
        weight = self.alpha * (progress.epoch + 1) / progress.epochs
        return {"total": adversarial + weight * gradient, "adversarial": adversarial, "gradient": gradient}


METHOD = IGDM
