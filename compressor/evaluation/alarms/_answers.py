"""When two answers of a model to the same image are two answers, and when they are one answer rounded twice."""

from __future__ import annotations

import torch
from torch import Tensor

from compressor.numerics.losses import cw_margin

_OF_THE_RANGE = 1e-4
_ROUNDING = 1e-5


def logits_differ(first: Tensor, second: Tensor) -> Tensor:
    """Which images got two answers, bool ``[B]``.

    A logit may differ by 1e-4 of its image's range of logits and 1e-5 of its own size: kernels for other batch sizes
    add in another order. The decision may differ only where the lead is within that rounding; a logit that is not
    finite must be so both times.

    Args:
        first: logits ``[B, K]``.
        second: logits ``[B, K]`` of the same images.
    """
    first, second = first.double(), second.double()
    finite = first.isfinite().all(1)
    spread = first.amax(1) - first.amin(1)
    rounding = _ROUNDING * first.abs().amax(1)
    off = (first - second).abs().amax(1) > _OF_THE_RANGE * spread + rounding
    decided = first.argmax(1)
    turned = (second.argmax(1) != decided) & (-cw_margin(first, decided) > rounding)
    return torch.where(finite, off | turned | ~second.isfinite().all(1), second.isfinite().all(1))
