"""KD, plain distillation (Hinton et al. 2015): soft labels at a temperature and labels, on natural images alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from compressor.core.contracts import Batch, LabelsIn, Progress, TeacherAt
from compressor.methods._attacks import WithoutAttack
from compressor.methods._terms import check_range, kl_term, soft_labels
from compressor.numerics.losses import cross_entropy

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class KD(WithoutAttack):
    """``L = (1 - alpha) CE(S(x), y) + alpha t^2 KL(T(x) / t || S(x) / t)``, both the mean over the batch.

    Source: Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", section 2; eq. 2 of the RSLAD
    paper. Neither fixes the two numbers: 4 and 0.9 are what public comparisons of distillation methods use most.

    Attributes:
        alpha: the weight of the soft labels, in [0, 1].
        temperature: t, at least 0.1. The factor t^2 keeps the gradient's size as t changes.
    """

    alpha: float = 0.9
    temperature: float = 4.0

    teacher_at: ClassVar[TeacherAt] = "natural"

    def __post_init__(self) -> None:
        check_range(self.alpha, "alpha", "kd", 0, 1, "0.9 in most comparisons")
        check_range(self.temperature, "temperature", "kd", 0.1, 1000, "1 to 20, mostly 4")

    @property
    def labels_in(self) -> LabelsIn:
        """In the cross-entropy, while it has a weight."""
        return "loss" if self.alpha < 1 else "nothing"

    def outer(
        self, student: nn.Module, teacher: nn.Module | None, batch: Batch, x_adv: Tensor, progress: Progress
    ) -> dict[str, Tensor]:
        """Return ``distillation``, ``label`` (where it has a weight) and ``total``, from one forward."""
        logits = student(batch.x)
        distillation = kl_term(soft_labels(batch, "kd"), logits, temperature=self.temperature)
        if self.alpha == 1:
            return {"total": distillation, "distillation": distillation}
        label = cross_entropy(logits, batch.y, batch.label_smoothing).mean()
        total = (1 - self.alpha) * label + self.alpha * distillation
        return {"total": total, "distillation": distillation, "label": label}


METHOD = KD
