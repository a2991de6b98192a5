"""TRADES (Zhang et al., ICML 2019): cross-entropy on natural images, and KL between natural and adversarial logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from compressor.core.contracts import Batch, LabelsIn, Objective, Progress, TeacherAt
from compressor.methods._attacks import GAUSSIAN_START, AdversarialTraining
from compressor.methods._terms import check_range, kl_objective
from compressor.numerics.losses import cross_entropy, kl_divergence

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class TRADES(AdversarialTraining):
    """``L = CE(f(x), y) + beta KL(f(x) || f(x'))``, ``x' = argmax KL(f(x) || f(x'))``; means over the batch.

    Source: Zhang et al. 2019, eq. 5, and its released code: a Gaussian start, the model in eval mode under attack,
    gradients through both arguments of KL, and three train-mode forwards: natural, adversarial, natural. The two
    natural ones give the same logits, but each moves BatchNorm's running statistics.

    Attributes:
        beta: the weight of KL, at least 0; 6 in the paper's best runs and in the released code.
    """

    beta: float = 6.0

    teacher_at: ClassVar[TeacherAt] = "nothing"
    labels_in: ClassVar[LabelsIn] = "loss"  # in the natural term; the attack goes by the model's own answer
    recipe_defaults: ClassVar[Mapping[str, Any]] = GAUSSIAN_START

    def __post_init__(self) -> None:
        check_range(self.beta, "beta", "trades", 0, float("inf"), "6")

    def inner(self, student: nn.Module, teacher: nn.Module | None, batch: Batch) -> Objective:
        """Per-image ``KL(f(x) || f(x'))`` in nats, to be maximised; ``f(x)`` is computed once."""
        with torch.no_grad():
            target = student(batch.x)
        return kl_objective(target, student)

    def outer(
        self, student: nn.Module, teacher: nn.Module | None, batch: Batch, x_adv: Tensor, progress: Progress
    ) -> dict[str, Tensor]:
        """Return ``natural``, ``robust`` and ``total``; forwards: natural, adversarial, natural."""
        natural = cross_entropy(student(batch.x), batch.y, batch.label_smoothing).mean()
        adversarial_logits = student(x_adv)
        robust = kl_divergence(student(batch.x), adversarial_logits).mean()
        return {"total": natural + self.beta * robust, "natural": natural, "robust": robust}


METHOD = TRADES
