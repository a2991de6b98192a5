"""AveragePool, MaxPool, GlobalAveragePool and ReduceMean."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from exporters.differentiable.operators._windows import Window, require_images
from exporters.differentiable.registry import Node, Operation, operator


@operator("AveragePool", 7, 10, 11, 19, 22)
def average_pool(node: Node) -> Operation:
    """The mean of each window; padding counts as zeros, or not at all, as ``count_include_pad`` says."""
    window, kernel = _window(node, dilations=node.has("dilations"))
    node.require(node.integer("ceil_mode", 0) == 0, "ceil_mode")
    node.require(window.dilations == (1, 1), "dilations")
    include = node.integer("count_include_pad", 0)
    node.require(include in (0, 1), "a count_include_pad that is neither 0 nor 1")

    def run(x: Tensor) -> Tensor:
        require_images(x)
        padding = window.padding(x, kernel)
        means = F.avg_pool2d(F.pad(x, padding), kernel, window.strides)
        if include or not any(padding):
            return means
        inside = F.pad(torch.ones_like(x[:1, :1]), padding)
        return means / F.avg_pool2d(inside, kernel, window.strides)

    return run


@operator("MaxPool", 8, 10, 11, 12, 22)
def max_pool(node: Node) -> Operation:
    """The largest value of each window; padding never wins."""
    window, kernel = _window(node, dilations=True)
    node.require(node.integer("storage_order", 0) == 0, "storage_order")
    ceil = node.integer("ceil_mode", 0)
    node.require(ceil in (0, 1), "a ceil_mode that is neither 0 nor 1")
    # Runtimes differ on a last window that would start in the padding or beyond the image; here there is none.
    plain = window.auto_pad == "NOTSET" and not any(window.pads) and window.dilations == (1, 1)
    short = all(stride <= size for stride, size in zip(window.strides, kernel, strict=True))
    node.require(not ceil or (plain and short), "ceil_mode together with padding, dilations or gaps")

    def run(x: Tensor) -> Tensor:
        require_images(x)
        padded = F.pad(x, window.padding(x, kernel), value=-math.inf)
        return F.max_pool2d(padded, kernel, window.strides, 0, window.dilations, ceil_mode=bool(ceil))

    return run


@operator("GlobalAveragePool", 1, 22)
def global_average_pool(node: Node) -> Operation:
    """The mean over all axes but batch and channel, which stay as axes of size one."""

    def run(x: Tensor) -> Tensor:
        if x.dim() < 3:
            raise ValueError("there is no axis to pool")
        return x.mean(dim=tuple(range(2, x.dim())), keepdim=True)

    return run


@operator("ReduceMean", 11, 13, 18)
def reduce_mean(node: Node) -> Operation:
    """The mean over the given axes: an attribute before version 18, an input since."""
    keep = node.integer("keepdims", 1)
    node.require(keep in (0, 1), "a keepdims that is neither 0 nor 1")
    given = node.integers("axes", []) if node.version < 18 else []
    untouched = node.integer("noop_with_empty_axes", 0) if node.version >= 18 else 0

    def run(x: Tensor, axes: Tensor | None = None) -> Tensor:
        wanted = given if axes is None else [int(axis) for axis in axes.tolist()]
        if not wanted and untouched:
            return x
        return x.mean(dim=wanted or list(range(x.dim())), keepdim=bool(keep))

    return run


def _window(node: Node, *, dilations: bool) -> tuple[Window, list[int]]:
    kernel = node.integers("kernel_shape")
    node.require(len(kernel) == 2 and min(kernel) >= 1, "a kernel that is not of two dimensions")
    return Window.read(node, dilations=dilations), kernel
