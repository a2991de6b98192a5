"""MART (Wang et al., ICLR 2020): boosted cross-entropy, and a KL that weighs misclassified images more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from compressor.core.contracts import Batch, LabelsIn, Progress, TeacherAt
from compressor.methods._attacks import GAUSSIAN_START, CrossEntropyAttack
from compressor.methods._terms import check_range
from compressor.numerics.losses import cross_entropy, kl_divergence

if TYPE_CHECKING:
    from torch import Tensor, nn


# The released code's guard: the logarithm of 1 - p stays above log 1e-4, whatever the model is sure of.
_GUARD = 1.0001


@dataclass(frozen=True)
class MART(CrossEntropyAttack):
    """``L = CE(f(x'), y) - log(1 - max_{k != y} p_k(x')) + beta KL(f(x) || f(x')) (1 - p_y(x))``, means over the batch.

    The first two terms are the boosted cross-entropy. Nothing is detached: the weight ``1 - p_y(x)`` learns too.

    Source: Wang et al. 2020, "Improving Adversarial Robustness Requires Revisiting Misclassified Examples", eq. 11, and
    its released code: attack by cross-entropy in eval mode from a Gaussian start, forwards natural, then adversarial.

    Attributes:
        beta: the weight of KL, at least 0; 5 in the released code for ResNet-18.
    """

    beta: float = 5.0

    teacher_at: ClassVar[TeacherAt] = "nothing"
    labels_in: ClassVar[LabelsIn] = "loss"  # in both terms and in the attack; smoothing acts on the plain cross-entropy
    # The boosted loss is steep: the publication trains at a tenth of the usual rate, with a strong decay.
    recipe_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {**GAUSSIAN_START, "learning_rate": 0.01, "weight_decay": 3.5e-3}
    )

    def __post_init__(self) -> None:
        check_range(self.beta, "beta", "mart", 0, float("inf"), "5 for ResNet-18, 6 for WideResNet")

    def outer(
        self, student: nn.Module, teacher: nn.Module | None, batch: Batch, x_adv: Tensor, progress: Progress
    ) -> dict[str, Tensor]:
        """Return ``boosted``, ``robust`` and ``total``; forwards: natural, adversarial."""
        natural_logits = student(batch.x)
        logits = student(x_adv)
        right = batch.y.unsqueeze(1)
        best_wrong = logits.softmax(1).scatter(1, right, 0.0).amax(1)
        margin = -torch.log(_GUARD - best_wrong)
        boosted = (cross_entropy(logits, batch.y, batch.label_smoothing) + margin).mean()
        doubt = 1 - natural_logits.softmax(1).gather(1, right).squeeze(1)
        robust = (kl_divergence(natural_logits, logits) * doubt).mean()
        return {"total": boosted + self.beta * robust, "boosted": boosted, "robust": robust}


METHOD = MART
