"""Attention as one operator, without memory of earlier calls."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from exporters.differentiable.registry import Node, Operation, operator

_MOST_INPUTS = 4  # query, key, value and a mask; what follows are the keys and values of earlier calls


@operator("Attention", 23, 24)
def attention(node: Node) -> Operation:
    """``softmax(scale Q K' + mask) V`` for each head of ``[B, heads, length, size]``."""
    node.require(len(node.proto.input) <= _MOST_INPUTS, "keys and values of earlier calls")
    node.require(node.integer("is_causal", 0) == 0, "is_causal")
    node.require(node.integer("qk_matmul_output_mode", 0) == 0, "qk_matmul_output_mode")
    node.require(node.real("softcap", 0.0) == 0, "softcap")
    given = node.real("scale", math.nan)

    def run(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        if not query.dim() == key.dim() == value.dim() == 4:
            raise ValueError("attention is computed for heads along an axis of their own only")
        if not query.shape[1] == key.shape[1] == value.shape[1]:
            raise ValueError("queries and keys are not of as many heads")
        scale = query.shape[-1] ** -0.5 if math.isnan(given) else given
        scores = scale * (query @ key.transpose(-1, -2))
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
        return torch.softmax(scores, -1) @ value

    return run
