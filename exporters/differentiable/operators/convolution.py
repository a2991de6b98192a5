"""Conv and ConvTranspose."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from exporters.differentiable.operators._sizes import bounded
from exporters.differentiable.operators._windows import MAX_PAD, Window
from exporters.differentiable.registry import Node, Operation, operator


@operator("Conv", 11, 22)
def conv(node: Node) -> Operation:
    """Cross-correlation over one or two axes, with groups, dilations and padding that may differ on each side."""
    window, groups, declared = Window.read(node), _groups(node), node.integers("kernel_shape", [])
    convolve = F.conv1d if window.axes == 1 else F.conv2d

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        kernel = _kernel(window, x, weight, declared)
        cells = window.padding(x, kernel)
        before, after = cells[-2::-2], cells[::-2]
        if before == after:
            return convolve(x, weight, bias, window.strides, before, window.dilations, groups)
        return convolve(F.pad(x, cells), weight, bias, window.strides, 0, window.dilations, groups)

    return run


@operator("ConvTranspose", 11, 22)
def conv_transpose(node: Node) -> Operation:
    """The transpose of a convolution over one or two axes: every cell of x adds its window; pads are cut off."""
    window, groups, declared = Window.read(node), _groups(node), node.integers("kernel_shape", [])
    node.require(window.auto_pad in ("NOTSET", "VALID"), f"auto_pad {window.auto_pad!r}")
    more = node.integers("output_padding", [0] * window.axes)
    node.require(len(more) == window.axes and 0 <= min(more) <= max(more) <= MAX_PAD, "this output_padding")
    convolve = F.conv_transpose1d if window.axes == 1 else F.conv_transpose2d

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        kernel = _kernel(window, x, weight, declared)
        steps = zip(x.shape[2:], kernel, window.strides, window.dilations, strict=True)
        whole = [(size - 1) * stride + (width - 1) * gap + 1 for size, width, stride, gap in steps]
        bounded([len(x), groups * weight.shape[1], *whole])
        y = convolve(x, weight, None, window.strides, 0, 0, groups, window.dilations)
        cells = window.padding(x, kernel)
        for place, added in enumerate(reversed(more)):
            cells[2 * place + 1] -= added
        y = F.pad(y, [-amount for amount in cells])
        return y if bias is None else y + bias.reshape(-1, *[1] * window.axes)

    return run


def _groups(node: Node) -> int:
    groups = node.integer("group", 1)
    node.require(groups >= 1, "a negative or zero group")
    return groups


def _kernel(window: Window, x: Tensor, weight: Tensor, declared: list[int]) -> list[int]:
    window.require_images(x)
    kernel = list(weight.shape[2:])
    if len(kernel) != window.axes or (declared and declared != kernel):
        raise ValueError("the weight is not of the declared kernel shape")
    return kernel
