"""Losses on logits, one value per image: the caller reduces, so no factor hides in a mean."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


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
