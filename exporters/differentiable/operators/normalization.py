"""Normalisation: by stored statistics, or by those of the image itself, one image at a time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from exporters.differentiable.operators._sizes import bounded
from exporters.differentiable.registry import Node, Operation, operator

_FLOAT32 = 1  # the stash_type in which onnxruntime computes, and this importer too


@operator("BatchNormalization", 9, 14, 15)
def batch_normalization(node: Node) -> Operation:
    """``scale * (x - mean) / sqrt(var + epsilon) + bias`` with stored statistics: inference only."""
    epsilon = node.real("epsilon", 1e-5)
    node.real("momentum", 0.9)  # moves the statistics in training only
    node.require(node.version < 14 or node.integer("training_mode", 0) == 0, "training_mode")

    def run(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return F.batch_norm(x, mean, variance, scale, bias, training=False, eps=epsilon)

    return run


@operator("LayerNormalization", 17)
def layer_normalization(node: Node) -> Operation:
    """Zero mean and unit variance over the axes from ``axis`` on, then ``scale`` and ``bias``."""
    axis, epsilon = node.integer("axis", -1), node.real("epsilon", 1e-5)
    _require_float32(node)

    def run(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
        y = F.layer_norm(x, x.shape[range(x.dim())[axis] :], eps=epsilon) * scale
        return y if bias is None else y + bias

    return run


@operator("RMSNormalization", 23)
def rms_normalization(node: Node) -> Operation:
    """Unit mean square over the axes from ``axis`` on, then ``scale``."""
    axis, epsilon = node.integer("axis", -1), node.real("epsilon", 1e-5)
    _require_float32(node)
    return lambda x, scale: F.rms_norm(x, x.shape[range(x.dim())[axis] :], eps=epsilon) * scale


@operator("InstanceNormalization", 6, 22)
def instance_normalization(node: Node) -> Operation:
    """Zero mean and unit variance of each channel of each image, then ``scale`` and ``bias`` of the channel."""
    epsilon = node.real("epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        y = F.layer_norm(x, x.shape[2:], eps=epsilon)
        return y * _by_channel(scale, x) + _by_channel(bias, x)

    return run


@operator("GroupNormalization", 18, 21)
def group_normalization(node: Node) -> Operation:
    """Zero mean and unit variance of each group of channels; ``scale`` and ``bias`` of the group before version 21."""
    groups, epsilon = node.integer("num_groups"), node.real("epsilon", 1e-5)
    node.require(groups >= 1, "a negative or zero num_groups")
    if node.version >= 21:
        _require_float32(node)

    def run(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        y = F.group_norm(x, groups, eps=epsilon)
        if node.version < 21:
            scale, bias = (values.repeat_interleave(x.shape[1] // groups) for values in (scale, bias))
        return y * _by_channel(scale, x) + _by_channel(bias, x)

    return run


@operator("LRN", 1, 13)
def local_response_normalization(node: Node) -> Operation:
    """``x / (bias + alpha / size * sum of squares of the size channels around) ** beta``."""
    alpha, beta = node.real("alpha", 1e-4), node.real("beta", 0.75)
    bias, size = node.real("bias", 1.0), node.integer("size")
    node.require(size >= 1 and size % 2 == 1, "a size that is not odd")

    def run(x: Tensor) -> Tensor:
        bounded([len(x), x.shape[1] + size, *x.shape[2:]])
        squares = x.square().reshape(len(x), 1, x.shape[1], -1)
        around = F.pad(squares, (0, 0, size // 2, size // 2))
        means = F.avg_pool2d(around, (size, 1), 1).reshape(x.shape)
        return x / (bias + alpha * means) ** beta

    return run


@operator("LpNormalization", 1, 22)
def lp_normalization(node: Node) -> Operation:
    """``x`` by its norm, of power 1 or 2, along one axis; zeros stay zeros."""
    axis, power = node.integer("axis", -1), node.integer("p", 2)
    node.require(power in (1, 2), f"p = {power}")

    def run(x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, ord=power, dim=axis, keepdim=True)
        return x / torch.where(norm == 0, 1, norm)

    return run


def _by_channel(values: Tensor, x: Tensor) -> Tensor:
    if values.numel() != x.shape[1]:
        raise ValueError("there is not one number for each channel")
    return values.reshape(-1, *[1] * (x.dim() - 2))


def _require_float32(node: Node) -> None:
    node.require(node.integer("stash_type", _FLOAT32) == _FLOAT32, "another stash_type than float32")
