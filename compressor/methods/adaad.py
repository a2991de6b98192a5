"""AdaAD (Huang et al., CVPR 2023): teacher and student meet at the adversarial image, where they differ most."""

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
class AdaAD(TeacherStudentAttack):
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

    def __post_init__(self) -> None:
        check_range(self.alpha, "alpha", "adaad", 0, 1, "1")
        check_reduction(self.reduction, "adaad")

    def outer(
        self, student: nn.Module, teacher: nn.Module | None, batch: Batch, x_adv: Tensor, progress: Progress
    ) -> dict[str, Tensor]:
        """Return ``adversarial``, ``natural`` (where it has a weight), ``total``; forwards: natural, adversarial."""
        guide = teacher_of(teacher, "adaad")
        natural_logits = student(batch.x)
        logits = student(x_adv)
        with torch.no_grad():
            target = guide(x_adv)
        adversarial = kl_term(target, logits, self.reduction)
        if self.alpha == 1:
            return {"total": adversarial, "adversarial": adversarial}
        with torch.no_grad():
            natural_target = guide(batch.x)
        natural = kl_term(natural_target, natural_logits, self.reduction)
        total = self.alpha * adversarial + (1 - self.alpha) * natural
        return {"total": total, "adversarial": adversarial, "natural": natural}


METHOD = AdaAD
