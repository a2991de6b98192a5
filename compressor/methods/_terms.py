"""What methods share: objectives, how per-image terms become a loss, and what is said when a teacher is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from compressor.core.errors import UsageError
from compressor.numerics.losses import cross_entropy, kl_divergence

if TYPE_CHECKING:
    from torch import Tensor, nn

    from compressor.core.contracts import Batch, Objective

KLReduction = Literal["batchmean/10", "batchmean", "mean"]
"""How per-image KL, in nats, becomes a loss.

``batchmean`` is the mean over images. ``mean`` divides that by the number of classes too, as torch's own default does,
and with it several released scripts. ``batchmean/10`` divides it by ten: the same at ten classes, and no less at more.
With SGD and weight decay this scale is part of the recipe.
"""


def cross_entropy_objective(student: nn.Module, batch: Batch) -> Objective:
    """``CE(S(x'), y)`` of each image, by its label as it is."""

    def objective(x_adv: Tensor, index: Tensor) -> Tensor:
        return cross_entropy(student(x_adv), batch.y[index])

    return objective


def kl_objective(target_logits: Tensor, student: nn.Module) -> Objective:
    """``KL(p || S(x'))`` of each image, in nats, with p the softmax of fixed logits ``[B, K]``."""

    def objective(x_adv: Tensor, index: Tensor) -> Tensor:
        return kl_divergence(target_logits[index], student(x_adv))

    return objective


def teacher_student_kl_objective(teacher: nn.Module, student: nn.Module) -> Objective:
    """``KL(T(x') || S(x'))`` of each image, in nats; both networks are differentiated."""

    def objective(x_adv: Tensor, index: Tensor) -> Tensor:
        return kl_divergence(teacher(x_adv), student(x_adv))

    return objective


def reduce_kl(per_image: Tensor, reduction: KLReduction, classes: int) -> Tensor:
    """A scalar from per-image KL ``[B]``, in nats; see ``KLReduction``."""
    divisor = {"batchmean/10": 10, "batchmean": 1, "mean": classes}[reduction]
    return per_image.mean() / divisor


def kl_term(target: Tensor, logits: Tensor, reduction: KLReduction = "batchmean", temperature: float = 1.0) -> Tensor:
    """``t^2 KL(softmax(target / t) || softmax(logits / t))``, reduced to a scalar in nats; both logits ``[B, K]``."""
    divergence = kl_divergence(target, logits, temperature)
    return temperature**2 * reduce_kl(divergence, reduction, target.shape[1])


def soft_labels(batch: Batch, method: str) -> Tensor:
    """The teacher's logits on the natural images, ``[B, K]``.

    Raises:
        UsageError: there is no teacher.
    """
    if batch.teacher_logits is None:
        raise _no_teacher(method)
    return batch.teacher_logits


def teacher_of(teacher: nn.Module | None, method: str) -> nn.Module:
    """The teacher, for a method that asks it itself.

    Raises:
        UsageError: there is none.
    """
    if teacher is None:
        raise _no_teacher(method)
    return teacher


def check_reduction(reduction: str, method: str) -> None:
    """Refuse a reduction that does not exist.

    Raises:
        UsageError: likewise.
    """
    if reduction not in get_args(KLReduction):
        known = ", ".join(get_args(KLReduction))
        raise UsageError(f"{method}'s reduction {reduction!r} is not known.", f"Use one of: {known}.")


def check_range(value: float, name: str, method: str, low: float, high: float, published: str) -> None:
    """Refuse a setting outside [low, high].

    Raises:
        UsageError: it is outside, or not a number.
    """
    if not low <= value <= high:
        limits = f"at least {low:g}" if high == float("inf") else f"between {low:g} and {high:g}"
        raise UsageError(f"{method}'s {name} {value:g} is not {limits}.", f"Published: {published}.")


def _no_teacher(method: str) -> UsageError:
    return UsageError(f"the method {method} needs a teacher, and none was given.", "Name one with --teacher FILE.")
