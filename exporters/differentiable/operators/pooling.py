"""AveragePool, MaxPool and their global kin."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from exporters.differentiable.operators._windows import Window
from exporters.differentiable.registry import Node, Operation, operator


@operator("AveragePool", 7, 10, 11, 19, 22)
def average_pool(node: Node) -> Operation:
    """The mean of each window; padding counts as zeros, or not at all, as ``count_include_pad`` says."""
    window, kernel = _window(node, dilations=node.has("dilations"), ceil=node.version >= 10)
    node.require(all(gap == 1 for gap in window.dilations), "dilations")
    include = node.integer("count_include_pad", 0)
    node.require(include in (0, 1), "a count_include_pad that is neither 0 nor 1")
    pool = F.avg_pool1d if window.axes == 1 else F.avg_pool2d

    def run(x: Tensor) -> Tensor:
        window.require_images(x)
        padding, beyond = window.padding(x, kernel), window.beyond(x, kernel)
        means = pool(F.pad(F.pad(x, padding), beyond), kernel, window.strides)
        if not any(beyond) and (include or not any(padding)):
            return means
        # What counts, padded as the values were: its mean is the part of each window that does.
        counts = F.pad(F.pad(torch.ones_like(x[:1, :1]), padding, value=float(include)), beyond)
        return means / pool(counts, kernel, window.strides)

    return run


@operator("MaxPool", 8, 10, 11, 12, 22)
def max_pool(node: Node) -> Operation:
    """The largest value of each window; padding never wins."""
    window, kernel = _window(node, dilations=node.version >= 10, ceil=node.version >= 10)
    node.require(node.integer("storage_order", 0) == 0, "storage_order")
    pool = F.max_pool1d if window.axes == 1 else F.max_pool2d

    def run(x: Tensor) -> Tensor:
        window.require_images(x)
        around = zip(window.padding(x, kernel), window.beyond(x, kernel), strict=True)
        padded = F.pad(x, [inner + outer for inner, outer in around], value=-math.inf)
        pooled: Tensor = pool(padded, kernel, window.strides, 0, window.dilations)
        return pooled

    return run


@operator("GlobalAveragePool", 1, 22)
def global_average_pool(node: Node) -> Operation:
    """The mean over all axes but batch and channel, which stay as axes of size one."""
    return lambda x: x.mean(dim=_inner_axes(x), keepdim=True)


@operator("GlobalMaxPool", 1, 22)
def global_max_pool(node: Node) -> Operation:
    """The largest value over all axes but batch and channel, which stay; equal ones share its gradient."""
    return lambda x: x.amax(dim=_inner_axes(x), keepdim=True)


def _inner_axes(x: Tensor) -> tuple[int, ...]:
    if x.dim() < 3:
        raise ValueError("there is no axis to pool")
    return tuple(range(2, x.dim()))


def _window(node: Node, *, dilations: bool, ceil: bool) -> tuple[Window, list[int]]:
    kernel = node.integers("kernel_shape")
    node.require(len(kernel) in (1, 2) and min(kernel) >= 1, "a kernel that is not of one or two dimensions")
    return Window.read(node, dilations=dilations, ceil=ceil), kernel
