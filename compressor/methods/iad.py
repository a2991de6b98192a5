"""IAD (Zhu et al., ICLR 2022): the student trusts its teacher less where the student's attack breaks the teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from compressor.core.contracts import AttackMode, Batch, LabelsIn, Progress, TeacherAt
from compressor.methods._attacks import UNIFORM_START, CrossEntropyAttack
from compressor.methods._terms import check_range, kl_term, soft_labels, teacher_of
from compressor.numerics.losses import kl_divergence

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class IAD(CrossEntropyAttack):
    """``L = t^2 KL(T(x) / t || S(x') / t) + (1 - T_y(x')^beta) KL(S(x) || S(x'))``, ``x' = argmax CE(S(x'), y)``.

    The second term, the student's trust in itself, starts after a part of the training.

    Source: Zhu et al. 2022, "Reliable Adversarial Distillation with Unreliable Teachers", eq. 7, and its released code
    (IAD-I), which leaves the first term at full weight where the equation multiplies it by ``T_y(x')^beta``; the mean
    over images; the target S(x) is not detached; PGD from a uniform start on the student in train mode. Its forwards,
    each of which moves BatchNorm's statistics: adversarial twice, natural once, and once more when the second term has
    started.

    Attributes:
        beta: the exponent of the teacher's probability, at least 0; 0.1 in the released code.
        begin: the part of the epochs after which the second term starts, in [0, 1]; epoch 60 of 200 as released.
        temperature: t, at least 0.1; 1 in the released code.
    """

    beta: float = 0.1
    begin: float = 0.3
    temperature: float = 1.0

    teacher_at: ClassVar[TeacherAt] = "natural"
    labels_in: ClassVar[LabelsIn] = "attack"  # in the attack, and in the weight of the second term
    attack_mode: ClassVar[AttackMode] = "train"
    recipe_defaults: ClassVar[Mapping[str, Any]] = UNIFORM_START

    def __post_init__(self) -> None:
        check_range(self.beta, "beta", "iad", 0, float("inf"), "0.1")
        check_range(self.begin, "begin", "iad", 0, 1, "0.3, which is epoch 60 of 200")
        check_range(self.temperature, "temperature", "iad", 0.1, 1000, "1")

    def outer(
        self, student: nn.Module, teacher: nn.Module | None, batch: Batch, x_adv: Tensor, progress: Progress
    ) -> dict[str, Tensor]:
        """Return ``teacher``, ``self`` (once it has started) and ``total``."""
        logits = student(x_adv)
        student(x_adv)  # for BatchNorm alone: the released code runs it and does not use it
        guided = kl_term(soft_labels(batch, "iad"), logits, temperature=self.temperature)
        natural_logits = student(batch.x)
        if progress.epoch < self.begin * progress.epochs:
            return {"total": guided, "teacher": guided}
        student(batch.x)  # likewise: the forward of a label term whose weight is 0
        with torch.no_grad():
            probability = teacher_of(teacher, "iad")(x_adv).softmax(1).gather(1, batch.y.unsqueeze(1)).squeeze(1)
        introspective = (kl_divergence(natural_logits, logits) * (1 - probability**self.beta)).mean()
        return {"total": guided + introspective, "teacher": guided, "self": introspective}


METHOD = IAD
