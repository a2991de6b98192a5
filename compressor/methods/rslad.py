"""RSLAD (Zi et al., ICCV 2021): the teacher's soft labels on natural images supervise every term; no hard labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from compressor.core.contracts import Batch, LabelsIn, Objective, Progress, TeacherAt
from compressor.methods._attacks import GAUSSIAN_START, AdversarialTraining
from compressor.methods._terms import KLReduction, check_range, check_reduction, kl_objective, kl_term, soft_labels

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class RSLAD(AdversarialTraining):
    r"""``L = alpha KL(T(x) || S(x')) + (1 - alpha) KL(T(x) || S(x))``, ``x' = argmax KL(T(x) || S(x'))``.

    Source: Zi et al. 2021, eq. 6 and 7, and its released code: temperature 1, the Gaussian start of the inner step,
    the student in eval mode under attack, two train-mode forwards, adversarial first.

    Attributes:
        alpha: the weight of the adversarial term, in [0, 1]; 5/6 in the released code.
        reduction: of KL; see ``KLReduction``. The released CIFAR-10 script takes the mean over classes too, and the
            CIFAR-100 one multiplies that by ten: both amount to ``batchmean/10``.
    """

    alpha: float = 5 / 6
    reduction: KLReduction = "batchmean/10"

    teacher_at: ClassVar[TeacherAt] = "natural"
    labels_in: ClassVar[LabelsIn] = "nothing"  # nowhere: the soft labels do it all
    recipe_defaults: ClassVar[Mapping[str, Any]] = GAUSSIAN_START

    def __post_init__(self) -> None:
        check_range(self.alpha, "alpha", "rslad", 0, 1, "5/6 = 0.8333")
        check_reduction(self.reduction, "rslad")

    def inner(self, student: nn.Module, teacher: nn.Module | None, batch: Batch) -> Objective:
        """Per-image ``KL(T(x) || S(x'))`` in nats, to be maximised."""
        return kl_objective(soft_labels(batch, "rslad"), student)

    def outer(
        self, student: nn.Module, teacher: nn.Module | None, batch: Batch, x_adv: Tensor, progress: Progress
    ) -> dict[str, Tensor]:
        """Return ``adversarial``, ``natural`` and ``total``; the adversarial forward comes first."""
        target = soft_labels(batch, "rslad")
        adversarial = kl_term(target, student(x_adv), self.reduction)
        natural = kl_term(target, student(batch.x), self.reduction)
        total = self.alpha * adversarial + (1 - self.alpha) * natural
        return {"total": total, "adversarial": adversarial, "natural": natural}


METHOD = RSLAD
