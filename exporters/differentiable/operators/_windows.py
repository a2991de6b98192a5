"""The padding arithmetic that convolution and pooling share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from exporters.differentiable.registry import Node


@dataclass(frozen=True)
class Window:
    """A window that slides over the last two axes of ``[B, C, H, W]``.

    Attributes:
        strides: steps along the height and the width.
        dilations: gaps between the window's own cells.
        auto_pad: how padding follows from the sizes; ``NOTSET`` means ``pads``.
        pads: cells added at the top, left, bottom and right.
    """

    strides: tuple[int, int]
    dilations: tuple[int, int]
    auto_pad: str
    pads: tuple[int, int, int, int]

    @classmethod
    def read(cls, node: Node, *, dilations: bool = True) -> Window:
        """Read the window's attributes, those of two dimensions only."""
        auto_pad = node.text("auto_pad", "NOTSET")
        node.require(auto_pad in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"), f"auto_pad {auto_pad[:30]!r}")
        strides = node.integers("strides", [1, 1])
        gaps = node.integers("dilations", [1, 1]) if dilations else [1, 1]
        pads = node.integers("pads", [0, 0, 0, 0])
        node.require(len(strides) == len(gaps) == 2 and len(pads) == 4, "a window that is not of two dimensions")
        node.require(min(*strides, *gaps) >= 1 and min(pads) >= 0, "a negative or zero step")
        node.require(auto_pad == "NOTSET" or not any(pads), "both auto_pad and pads")
        return cls((strides[0], strides[1]), (gaps[0], gaps[1]), auto_pad, (pads[0], pads[1], pads[2], pads[3]))

    def padding(self, x: Tensor, kernel: Sequence[int]) -> tuple[int, int, int, int]:
        """Cells to add at the left, right, top and bottom: the order of ``torch.nn.functional.pad``."""
        if self.auto_pad in ("NOTSET", "VALID"):
            top, left, bottom, right = self.pads
            return left, right, top, bottom
        top, bottom = self._same(x.shape[2], kernel[0], 0)
        left, right = self._same(x.shape[3], kernel[1], 1)
        return left, right, top, bottom

    def _same(self, size: int, kernel: int, axis: int) -> tuple[int, int]:
        # SAME gives ceil(size / stride) outputs; the odd cell goes where the name says.
        stride = self.strides[axis]
        reach = (kernel - 1) * self.dilations[axis] + 1
        total = max(0, (-(-size // stride) - 1) * stride + reach - size)
        small, large = total // 2, total - total // 2
        return (small, large) if self.auto_pad == "SAME_UPPER" else (large, small)


def require_images(x: Tensor) -> None:
    """Raise ValueError unless ``x`` is ``[B, C, H, W]``."""
    if x.dim() != 4:
        raise ValueError("windows slide over [B, C, H, W] only")
