"""Conv and BatchNormalization."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from exporters.differentiable.operators._windows import Window, require_images
from exporters.differentiable.registry import Node, Operation, operator


@operator("Conv", 11, 22)
def conv(node: Node) -> Operation:
    """Two-dimensional cross-correlation, with groups, dilations and padding that may differ on each side."""
    window = Window.read(node)
    groups = node.integer("group", 1)
    declared = node.integers("kernel_shape", [])
    node.require(groups >= 1, "a negative or zero group")

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        require_images(x)
        kernel = list(weight.shape[2:])
        if len(kernel) != 2 or (declared and declared != kernel):
            raise ValueError("the weight is not of the declared kernel shape")
        left, right, top, bottom = window.padding(x, kernel)
        if (left, top) == (right, bottom):
            return F.conv2d(x, weight, bias, window.strides, (top, left), window.dilations, groups)
        padded = F.pad(x, (left, right, top, bottom))
        return F.conv2d(padded, weight, bias, window.strides, 0, window.dilations, groups)

    return run


@operator("BatchNormalization", 9, 14, 15)
def batch_normalization(node: Node) -> Operation:
    """``scale * (x - mean) / sqrt(var + epsilon) + bias`` with stored statistics: inference only."""
    epsilon = node.real("epsilon", 1e-5)
    node.real("momentum", 0.9)  # moves the statistics in training only
    node.require(node.integer("training_mode", 0) == 0, "training_mode")

    def run(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return F.batch_norm(x, mean, variance, scale, bias, training=False, eps=epsilon)

    return run
