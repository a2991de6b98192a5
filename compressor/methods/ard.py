"""ARD (Goldblum et al., AAAI 2020): adversarial logits follow the teacher's natural ones, at a temperature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from compressor.core.contracts import AttackMode, Batch, LabelsIn, Progress, TeacherAt
from compressor.methods._attacks import UNIFORM_START, CrossEntropyAttack
from compressor.methods._terms import (
    KLReduction,
    check_range,
    check_reduction,
    kl_term,
    soft_labels,
)
from compressor.numerics.losses import cross_entropy

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class ARD(CrossEntropyAttack):
    """``L = alpha t^2 KL(T(x) / t || S(x') / t) + (1 - alpha) CE(S(x), y)``, ``x' = argmax CE(S(x'), y)``.

    Source: Goldblum et al. 2020, "Adversarially Robust Distillation", eq. 4, and its released code: PGD from a uniform
    start on the student *in train mode*, so that every step of the attack moves its BatchNorm statistics; KL as the
    mean over images and classes; forwards adversarial, then natural, also where the natural term has no weight.

    Attributes:
        alpha: the weight of the soft labels, in [0, 1]; 1 in the released code.
        temperature: t, at least 0.1; 30 in the released code.
        reduction: of KL; see ``KLReduction``.
    """

    alpha: float = 1.0
    temperature: float = 30.0
    reduction: KLReduction = "mean"

    teacher_at: ClassVar[TeacherAt] = "natural"
    attack_mode: ClassVar[AttackMode] = "train"
    recipe_defaults: ClassVar[Mapping[str, Any]] = UNIFORM_START

    def __post_init__(self) -> None:
        check_range(self.alpha, "alpha", "ard", 0, 1, "1")
        check_range(self.temperature, "temperature", "ard", 0.1, 1000, "30")
        check_reduction(self.reduction, "ard")

    @property
    def labels_in(self) -> LabelsIn:
        """In the attack, and in the cross-entropy while it has a weight."""
        return "loss" if self.alpha < 1 else "attack"

    def outer(
        self, student: nn.Module, teacher: nn.Module | None, batch: Batch, x_adv: Tensor, progress: Progress
    ) -> dict[str, Tensor]:
        """Return ``adversarial``, ``natural`` (where it has a weight), ``total``; forwards: adversarial, natural."""
        target = soft_labels(batch, "ard")
        adversarial = kl_term(target, student(x_adv), self.reduction, self.temperature)
        natural_logits = student(batch.x)
        if self.alpha == 1:
            return {"total": adversarial, "adversarial": adversarial}
        natural = cross_entropy(natural_logits, batch.y, batch.label_smoothing).mean()
        total = self.alpha * adversarial + (1 - self.alpha) * natural
        return {"total": total, "adversarial": adversarial, "natural": natural}


METHOD = ARD
