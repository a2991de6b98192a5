"""Losses on logits, one value per image: the caller reduces, so no factor hides in a mean."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

_TINY = 1e-12  # as the released code of AutoAttack has it, against a division by zero


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of each image.

    ``-(1 - s) log softmax(z)_y - s / K sum_k log softmax(z)_k``

    Args:
        logits: ``[B, K]``.
        labels: int64 ``[B]``, in 0 to K - 1.
        smoothing: s, the share of a label's probability that is spread over all classes, in [0, 1).

    Returns:
        ``[B]``, in nats.

    Source: Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7, for the smoothing.
    """
    return F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)


def is_wrong(logits: Tensor, labels: Tensor) -> Tensor:
    """The 0-1 loss: whether the model errs on each image. Logits that are not finite are an error.

    Args:
        logits: ``[B, K]``.
        labels: int64 ``[B]``.

    Returns:
        bool ``[B]``.
    """
    return ~logits.isfinite().all(1) | (logits.argmax(1) != labels)


def cw_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """By how much the best wrong class beats the right one: positive where the model errs, 0 at a tie.

    ``max_{j != y} z_j - z_y``

    Args:
        logits: ``[B, K]``, K at least 2.
        labels: int64 ``[B]``, in 0 to K - 1.

    Returns:
        ``[B]``, in logits, not clamped: an attack may go on past the boundary.

    Source:
        Carlini and Wagner 2017, "Towards Evaluating the Robustness of Neural Networks", f_6, with the sign turned so
        that an attack maximises it.
    """
    right = labels.unsqueeze(1)
    wrong = logits.scatter(1, right, float("-inf"))
    return wrong.amax(1) - logits.gather(1, right).squeeze(1)


def kl_divergence(target_logits: Tensor, logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Kullback-Leibler divergence of ``softmax(logits / t)`` from ``softmax(target_logits / t)``.

    ``KL(p || q) = sum_k p_k (log p_k - log q_k)``, with p the target's probabilities and q the model's.

    Both arguments get gradients: detach the target where it must not learn.

    Args:
        target_logits: ``[B, K]``, the teacher's.
        logits: ``[B, K]``, the student's.
        temperature: t, above 0; the result is not multiplied by its square.

    Returns:
        ``[B]``, in nats: the sum over classes, which is K times what the released code of RSLAD averages.

    Source:
        Zi et al. 2021, "Revisiting Adversarial Robustness Distillation: Robust Soft Labels Make Student Better", eq. 4.
    """
    target_log_p = F.log_softmax(target_logits / temperature, dim=1)
    log_q = F.log_softmax(logits / temperature, dim=1)
    return F.kl_div(log_q, target_log_p, reduction="none", log_target=True).sum(1)


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """The difference of logits ratio: a margin that neither adding to the logits nor scaling them changes.

    ``(max_{j != y} z_j - z_y) / (z_(1) - z_(3))``, with z_(i) the i-th largest logit.

    Args:
        logits: ``[B, K]``; with 2 classes there is no third logit, and the plain margin stands in.
        labels: int64 ``[B]``, in 0 to K - 1.

    Returns:
        ``[B]``, positive where the model errs.

    Source: Croce and Hein 2020, "Reliable Evaluation of Adversarial Robustness", eq. 6, with the sign to be maximised.
    """
    margin = cw_margin(logits, labels)
    if logits.shape[1] < 3:
        return margin
    top = logits.topk(3, dim=1).values
    return margin / (top[:, 0] - top[:, 2] + _TINY)


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The difference of logits ratio towards one wrong class.

    ``(z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2)``, with z_(i) the i-th largest logit.

    Args:
        logits: ``[B, K]``; with fewer than 4 classes there is no fourth logit, and ``z_t - z_y`` stands in.
        labels: int64 ``[B]``, in 0 to K - 1.
        targets: int64 ``[B]``, in 0 to K - 1: t.

    Returns:
        ``[B]``, positive where the target beats the right class.

    Source: Croce and Hein 2020, "Reliable Evaluation of Adversarial Robustness", eq. 7.
    """
    margin = targeted_margin(logits, labels, targets)
    if logits.shape[1] < 4:
        return margin
    top = logits.topk(4, dim=1).values
    return margin / (top[:, 0] - 0.5 * (top[:, 2] + top[:, 3]) + _TINY)


def targeted_margin(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """By how much one wrong class beats the right one: ``z_t - z_y``.

    Args:
        logits: ``[B, K]``.
        labels: int64 ``[B]``, in 0 to K - 1.
        targets: int64 ``[B]``, in 0 to K - 1: t.

    Returns:
        ``[B]``, in logits.
    """
    return (logits.gather(1, targets.unsqueeze(1)) - logits.gather(1, labels.unsqueeze(1))).squeeze(1)
