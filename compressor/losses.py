"""Losses on logits, one value per image: the caller reduces, so no factor hides in a mean."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each image.

    ``-log softmax(z)_y``

    Args:
        logits: ``[B, K]``.
        labels: int64 ``[B]``, in 0 to K - 1.

    Returns:
        ``[B]``, in nats.
    """
    return F.cross_entropy(logits, labels, reduction="none")


def cw_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """By how much the best wrong class beats the right one: positive exactly where the model errs.

    ``max_{j != y} z_j - z_y``

    Args:
        logits: ``[B, K]``, K at least 2.
        labels: int64 ``[B]``, in 0 to K - 1.

    Returns:
        ``[B]``, in logits, not clamped: an attack may go on past the boundary.

    References:
        Carlini and Wagner 2017, "Towards Evaluating the Robustness of Neural Networks", f_6, with the sign turned so
        that an attack maximises it.
    """
    right_B1 = labels.unsqueeze(1)
    wrong_BK = logits.scatter(1, right_B1, float("-inf"))
    return wrong_BK.amax(1) - logits.gather(1, right_B1).squeeze(1)


def kl_divergence(target_logits: Tensor, logits: Tensor) -> Tensor:
    """Kullback-Leibler divergence of ``softmax(logits)`` from ``softmax(target_logits)``, temperature 1.

    ``KL(p || q) = sum_k p_k (log p_k - log q_k)``, with p the target's probabilities and q the model's.

    Both arguments get gradients: detach the target where it must not learn. A class whose probability underflows adds 0.

    Args:
        target_logits: ``[B, K]``, the teacher's.
        logits: ``[B, K]``, the student's.

    Returns:
        ``[B]``, in nats: the sum over classes, which is K times what the released code of RSLAD averages.

    References:
        Zi et al. 2021, "Revisiting Adversarial Robustness Distillation: Robust Soft Labels Make Student Better", eq. 4.
    """
    target_log_p = F.log_softmax(target_logits, dim=1)
    log_q = F.log_softmax(logits, dim=1)
    return F.kl_div(log_q, target_log_p, reduction="none", log_target=True).sum(1)
