"""RSLAD (Zi et al., ICCV 2021): the teacher's soft labels on natural images supervise every term; no hard labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from compressor.contracts import Batch, Objective, Progress
from compressor.errors import UsageError
from compressor.losses import kl_divergence

if TYPE_CHECKING:
    from torch import Tensor, nn

KLReduction = Literal["batchmean/10", "batchmean", "mean"]


@dataclass(frozen=True)
class RSLAD:
    r"""``L = alpha KL(T(x) || S(x')) + (1 - alpha) KL(T(x) || S(x))``, ``x' = argmax KL(T(x) || S(x'))``.

    Source: Zi et al. 2021, eq. 6 and 7, and its released code: temperature 1, the Gaussian start of the inner step,
    the student in eval mode under attack, two train-mode forwards, adversarial first.

    Attributes:
        alpha: the weight of the adversarial term, in [0, 1]; 5/6 in the released code.
        reduction: how per-image KL, in nats, becomes the loss. ``batchmean`` is the mean over images; ``mean`` divides
            it by the number of classes too, as the released CIFAR-10 script does; ``batchmean/10`` divides by ten,
            which is what both released scripts amount to (the CIFAR-100 one multiplies ``mean`` by ten). With SGD and
            weight decay this scale is part of the recipe.
    """

    alpha: float = 5 / 6
    reduction: KLReduction = "batchmean/10"

    teacher_at: ClassVar[Literal["nothing", "natural", "adversarial"]] = "natural"
    attack_mode: ClassVar[Literal["eval", "train"]] = "eval"
    selects_by: ClassVar[Literal["robust", "clean"]] = "robust"
    recipe_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"attack_start": "gaussian", "attack_start_scale": 0.001}
    )

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise UsageError(f"rslad's alpha {self.alpha} is not between 0 and 1.", "The paper uses 5/6 = 0.8333.")
        if self.reduction not in ("batchmean/10", "batchmean", "mean"):
            raise UsageError(
                f"rslad's reduction {self.reduction!r} is not known.", "Use batchmean/10, batchmean or mean."
            )

    def inner(self, student: nn.Module, teacher: nn.Module | None, batch: Batch) -> Objective:
        """Per-image ``KL(T(x) || S(x'))`` in nats, to be maximised."""
        target = _soft_labels(batch)

        def objective(x_adv: Tensor, index: Tensor) -> Tensor:
            return kl_divergence(target[index], student(x_adv))

        return objective

    def outer(
        self, student: nn.Module, teacher: nn.Module | None, batch: Batch, x_adv: Tensor, progress: Progress
    ) -> dict[str, Tensor]:
        """Return ``adversarial``, ``natural`` and ``total``; the adversarial forward comes first."""
        target = _soft_labels(batch)
        adversarial = self._reduce(kl_divergence(target, student(x_adv)), classes=target.shape[1])
        natural = self._reduce(kl_divergence(target, student(batch.x)), classes=target.shape[1])
        total = self.alpha * adversarial + (1 - self.alpha) * natural
        return {"total": total, "adversarial": adversarial, "natural": natural}

    def _reduce(self, per_image: Tensor, classes: int) -> Tensor:
        divisor = {"batchmean/10": 10, "batchmean": 1, "mean": classes}[self.reduction]
        return per_image.mean() / divisor


def _soft_labels(batch: Batch) -> Tensor:
    if batch.teacher_logits is None:
        raise UsageError("rslad needs a teacher, and none was given.", "Name one with --teacher FILE.")
    return batch.teacher_logits


METHOD = RSLAD
