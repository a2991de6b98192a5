"""Values that are exact, with a gradient that is another's: the straight-through estimator.

Source: Bengio et al. 2013; Athalye et al. 2018, section 4.1 (BPDA with the identity).
"""

from __future__ import annotations

import torch
from torch import Tensor


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def straight_through(x: Tensor, value: Tensor) -> Tensor:
    """Exactly ``value``, with the gradient of ``x``; both of one shape ``[...]``."""
    result: Tensor = _StraightThrough.apply(x, value.detach())
    return result


def past_constants(value: Tensor, *operands: Tensor) -> Tensor:
    """Exactly ``value``, with the gradient of the one operand that has any: what chooses between a value and a bound.

    Args:
        value: ``[...]``, an operator's result.
        operands: what it was chosen from, broadcast to it; where two of them have gradients, its own gradient stays.
    """
    moving = [operand for operand in operands if operand.requires_grad]
    return straight_through(moving[0].expand_as(value), value) if len(moving) == 1 else value
