"""RSLAD (Zi et al., ICCV 2021): the teacher's soft labels on natural images supervise every term; no hard labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from compressor.core.contracts import AttackMode, Batch, LabelsIn, Objective, Progress, SelectsBy, TeacherAt
from compressor.methods._terms import KLReduction, check_range, check_reduction, kl_objective, reduce_kl, soft_labels
from compressor.numerics.losses import kl_divergence

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class RSLAD:
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
    attack_mode: ClassVar[AttackMode] = "eval"
    selects_by: ClassVar[SelectsBy] = "robust"
    recipe_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"attack_start": "gaussian", "attack_start_scale": 0.001}
    )

    def __post_init__(self) -> None:
        check_range(self.alpha, "alpha", "rslad", 0, 1, "5/6 = 0.8333")
        check_reduction(self.reduction, "rslad")

    @property
    def labels_in(self) -> LabelsIn:
        """Nowhere: the soft labels do it all."""
        return "nothing"

    def inner(self, student: nn.Module, teacher: nn.Module | None, batch: Batch) -> Objective:
        """Per-image ``KL(T(x) || S(x'))`` in nats, to be maximised."""
        return kl_objective(soft_labels(batch, "rslad"), student)

    def outer(
        self, student: nn.Module, teacher: nn.Module | None, batch: Batch, x_adv: Tensor, progress: Progress
    ) -> dict[str, Tensor]:
        """Return ``adversarial``, ``natural`` and ``total``; the adversarial forward comes first."""
        target = soft_labels(batch, "rslad")
        classes = target.shape[1]
        adversarial = reduce_kl(kl_divergence(target, student(x_adv)), self.reduction, classes)
        natural = reduce_kl(kl_divergence(target, student(batch.x)), self.reduction, classes)
        total = self.alpha * adversarial + (1 - self.alpha) * natural
        return {"total": total, "adversarial": adversarial, "natural": natural}


METHOD = RSLAD
