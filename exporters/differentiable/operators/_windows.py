"""The padding arithmetic that convolution and pooling share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from exporters.differentiable.registry import Node

MAX_PAD = 4096
"""The most cells that padding may add at one side: a number in a file can ask for any amount."""


@dataclass(frozen=True)
class Window:
    """A window that slides over the last axes, one or two, of ``[B, C, L]`` or ``[B, C, H, W]``.

    Attributes:
        strides: steps along each of these axes.
        dilations: gaps between the window's own cells.
        auto_pad: how padding follows from the sizes; ``NOTSET`` means ``pads``.
        pads: cells added before each axis, then after each.
        ceil: whether a last window that reaches beyond the padding counts.
    """

    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    auto_pad: str
    pads: tuple[int, ...]
    ceil: bool = False

    @classmethod
    def read(cls, node: Node, *, dilations: bool = True, ceil: bool = False) -> Window:
        """Read the window's attributes.

        Args:
            node: the node.
            dilations: whether this version of the operator has them.
            ceil: whether it has ``ceil_mode``.
        """
        auto_pad = node.text("auto_pad", "NOTSET")
        node.require(auto_pad in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"), f"auto_pad {auto_pad[:30]!r}")
        axes = _axes(node)
        strides = node.integers("strides", [1] * axes)
        gaps = node.integers("dilations", [1] * axes) if dilations else [1] * axes
        pads = node.integers("pads", [0] * 2 * axes)
        fits = len(strides) == len(gaps) == axes and len(pads) == 2 * axes
        node.require(fits and axes in (1, 2), "a window that is not of one or two dimensions")
        node.require(min(*strides, *gaps) >= 1 and min(pads) >= 0, "a negative or zero step")
        node.require(max(pads) <= MAX_PAD, f"pads of more than {MAX_PAD} cells")
        node.require(auto_pad == "NOTSET" or not any(pads), "both auto_pad and pads")
        up = node.integer("ceil_mode", 0) if ceil else 0
        node.require(up in (0, 1), "a ceil_mode that is neither 0 nor 1")
        node.require(up == 0 or auto_pad == "NOTSET", "both auto_pad and ceil_mode")
        return cls(tuple(strides), tuple(gaps), auto_pad, tuple(pads), bool(up))

    @property
    def axes(self) -> int:
        """How many axes it slides over."""
        return len(self.strides)

    def padding(self, x: Tensor, kernel: Sequence[int]) -> list[int]:
        """Cells to add before and after each axis, the last axis first: the order of ``torch.nn.functional.pad``."""
        sides = [self._sides(axis, x.shape[2 + axis], kernel[axis]) for axis in reversed(range(self.axes))]
        return _bounded([cells for pair in sides for cells in pair])

    def beyond(self, x: Tensor, kernel: Sequence[int]) -> list[int]:
        """Cells that a window counted by ``ceil`` reaches beyond the padding, in the same order."""
        cells = [0] * (2 * self.axes)
        if self.ceil:
            for place, axis in enumerate(reversed(range(self.axes))):
                cells[2 * place + 1] = self._excess(axis, x.shape[2 + axis], kernel[axis])
        return _bounded(cells)

    def require_images(self, x: Tensor) -> None:
        """Raise ValueError unless ``x`` has batch, channels, and the axes that it slides over."""
        if x.dim() != 2 + self.axes:
            raise ValueError("the window is not of the dimensions of what it slides over")

    def _sides(self, axis: int, size: int, kernel: int) -> tuple[int, int]:
        if self.auto_pad in ("NOTSET", "VALID"):
            return self.pads[axis], self.pads[axis + self.axes]
        # SAME gives ceil(size / stride) outputs; the odd cell goes where the name says.
        total = max(0, (-(-size // self.strides[axis]) - 1) * self.strides[axis] + self._reach(axis, kernel) - size)
        small, large = total // 2, total - total // 2
        return (small, large) if self.auto_pad == "SAME_UPPER" else (large, small)

    def _excess(self, axis: int, size: int, kernel: int) -> int:
        before, after = self._sides(axis, size, kernel)
        stride, reach = self.strides[axis], self._reach(axis, kernel)
        last = -(-(before + size + after - reach) // stride) * stride
        if last >= before + size:  # a window that would start in the padding does not count
            last -= stride
        return max(0, last + reach - (before + size + after))

    def _reach(self, axis: int, kernel: int) -> int:
        return (kernel - 1) * self.dilations[axis] + 1


def _bounded(cells: list[int]) -> list[int]:
    """The same, unless a window of a size that the file chooses asks for too many."""
    if max(cells) > MAX_PAD:
        raise ValueError("the window asks for too much padding")
    return cells


def _axes(node: Node) -> int:
    """How many axes a window has, by whichever attribute says so; two where none does."""
    for name, share in (("kernel_shape", 1), ("strides", 1), ("dilations", 1), ("pads", 2)):
        if node.has(name):
            return len(node.integers(name)) // share
    return 2
