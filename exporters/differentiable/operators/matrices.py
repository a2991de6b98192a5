"""Gemm, MatMul and Einsum."""

from __future__ import annotations

import torch
from torch import Tensor

from exporters.differentiable.registry import Node, Operation, operator


@operator("Gemm", 9, 11, 13)
def gemm(node: Node) -> Operation:
    """``alpha * A' B' + beta * C``, where ``'`` transposes if the attribute says so."""
    alpha, beta = node.real("alpha", 1.0), node.real("beta", 1.0)
    turn_a, turn_b = node.integer("transA", 0), node.integer("transB", 0)
    node.require({turn_a, turn_b} <= {0, 1}, "a transposition that is neither 0 nor 1")

    def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        if a.dim() != 2 or b.dim() != 2:
            raise ValueError("Gemm multiplies matrices only")
        a, b = (a.T if turn_a else a), (b.T if turn_b else b)
        if c is None:
            product = a @ b
            return product if alpha == 1.0 else alpha * product
        return torch.addmm(c, a, b, beta=beta, alpha=alpha)

    return run


@operator("MatMul", 9, 13)
def matmul(node: Node) -> Operation:
    """The matrix product, with NumPy's rules for more than two axes."""
    return torch.matmul


@operator("Einsum", 12)
def einsum(node: Node) -> Operation:
    """Products of entries, summed over the letters that the right side leaves out."""
    equation = node.text("equation", "")
    return lambda *operands: torch.einsum(equation, *operands)
