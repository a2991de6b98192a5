"""Resize, DepthToSpace and SpaceToDepth.

A resized axis is a weighted sum of entries of the old one, axis by axis: one entry where the nearest is taken, two for
linear and four for cubic interpolation. The arithmetic of positions is onnxruntime's, in float32, since a tie between
two neighbours is decided by its last bit.

Source: ONNX operator definitions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor

from exporters.differentiable.operators._sizes import bounded, listed
from exporters.differentiable.registry import Node, Operation, operator

_TAPS = {"nearest": 1, "linear": 2, "cubic": 4}
_Place = Callable[[Tensor, float, int, int], Tensor]
"""Old positions of new ones: new positions, scale, old size, new size."""
_PLACES: dict[str, _Place] = {
    "half_pixel": lambda new, scale, old_size, new_size: (new + 0.5) / scale - 0.5,
    "asymmetric": lambda new, scale, old_size, new_size: new / scale,
    "align_corners": lambda new, scale, old_size, new_size: new * (old_size - 1) / max(1, new_size - 1),
    "pytorch_half_pixel": lambda new, scale, old_size, new_size: (
        (new + 0.5) / scale - 0.5 if new_size > 1 else torch.zeros_like(new)
    ),
    "half_pixel_symmetric": lambda new, scale, old_size, new_size: (
        old_size / 2 * (1 - new_size / (scale * old_size)) + (new + 0.5) / scale - 0.5
    ),
}
_NEAREST: dict[str, Callable[[Tensor], Tensor]] = {
    "round_prefer_floor": lambda place: torch.ceil(place - 0.5),
    "round_prefer_ceil": lambda place: torch.floor(place + 0.5),
    "floor": torch.floor,
    "ceil": torch.ceil,
}


@operator("Resize", 11, 13, 18, 19)
def resize(node: Node) -> Operation:
    """Another number of entries along some axes, by scales or by sizes."""
    mode = node.text("mode", "nearest")
    node.require(mode in _TAPS, f"mode {mode[:30]!r}")
    coordinates = node.text("coordinate_transformation_mode", "half_pixel")
    node.require(coordinates in _PLACES, f"coordinate_transformation_mode {coordinates[:30]!r}")
    nearest = node.text("nearest_mode", "round_prefer_floor")
    node.require(nearest in _NEAREST, f"nearest_mode {nearest[:30]!r}")
    cubic = node.real("cubic_coeff_a", -0.75)
    node.require(node.integer("exclude_outside", 0) == 0, "exclude_outside")
    node.real("extrapolation_value", 0.0)  # belongs to a coordinate mode that is refused
    axes: list[int] = []
    if node.version >= 18:
        axes = node.integers("axes", [])
        node.require(node.integer("antialias", 0) == 0, "antialias")
        policy = node.text("keep_aspect_ratio_policy", "stretch")
        node.require(policy == "stretch", f"keep_aspect_ratio_policy {policy[:30]!r}")

    def along(x: Tensor, axis: int, scale: float, new_size: int) -> Tensor:
        old_size = x.shape[axis]
        new = torch.arange(new_size, dtype=torch.float32, device=x.device)
        places = _PLACES[coordinates](new, scale, old_size, new_size)
        taps, weights = _taps(mode, places, old_size, _NEAREST[nearest], cubic)
        parts = [
            _entries(x, axis, tap.clamp(0, old_size - 1), weight) for tap, weight in zip(taps, weights, strict=True)
        ]
        return reduce(torch.add, parts)

    def run(x: Tensor, roi: Tensor | None = None, scales: Tensor | None = None, sizes: Tensor | None = None) -> Tensor:
        # The region belongs to a coordinate mode that is refused.
        wanted = [range(x.dim())[axis] for axis in axes] or list(range(x.dim()))
        old = [x.shape[axis] for axis in wanted]
        if sizes is not None and sizes.numel():
            new = listed(sizes)
            factors = [_rounded(n / o) for n, o in zip(new, old, strict=True)]
        elif scales is not None and scales.numel() == len(wanted):
            factors = [float(factor) for factor in scales.tolist()]
            new = [int(_rounded(o * factor)) for o, factor in zip(old, factors, strict=True)]
        else:
            raise ValueError("there is neither a scale nor a size for each axis")
        final = list(x.shape)
        for axis, size in zip(wanted, new, strict=True):
            final[axis] = size
        bounded(final)
        for axis, factor, size in zip(wanted, factors, new, strict=True):
            if (factor, size) != (1.0, x.shape[axis]):
                x = along(x, axis, factor, size)
        return x

    return run


@operator("DepthToSpace", 11, 13)
def depth_to_space(node: Node) -> Operation:
    """Channels become blocks of pixels; in the order depth-column-row or column-row-depth."""
    block, mode = node.integer("blocksize"), node.text("mode", "DCR")
    node.require(mode in ("DCR", "CRD"), f"mode {mode[:30]!r}")

    def run(x: Tensor) -> Tensor:
        images, channels, height, width = x.shape
        depth = channels // block**2
        if mode == "DCR":
            cells = x.reshape(images, block, block, depth, height, width).permute(0, 3, 4, 1, 5, 2)
        else:
            cells = x.reshape(images, depth, block, block, height, width).permute(0, 1, 4, 2, 5, 3)
        return cells.reshape(images, depth, height * block, width * block)

    return run


@operator("SpaceToDepth", 1, 13)
def space_to_depth(node: Node) -> Operation:
    """Blocks of pixels become channels, the position in the block being the slower part of the channel."""
    block = node.integer("blocksize")

    def run(x: Tensor) -> Tensor:
        images, channels, height, width = x.shape
        cells = x.reshape(images, channels, height // block, block, width // block, block)
        return cells.permute(0, 3, 5, 1, 2, 4).reshape(images, -1, height // block, width // block)

    return run


def _rounded(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float32))


def _entries(x: Tensor, axis: int, positions: Tensor, weights: Tensor | None) -> Tensor:
    entries = x.index_select(axis, positions.long())
    if weights is None:
        return entries
    return entries * weights.to(x.dtype).reshape(-1, *[1] * (x.dim() - axis - 1))


def _taps(
    mode: str, places: Tensor, size: int, nearest: Callable[[Tensor], Tensor], cubic: float
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Which old entries make up each new one, and their weights; None where there is one entry alone."""
    if mode == "nearest":
        return [nearest(places)], [None]
    if mode == "linear":
        places = places.clamp(0, size - 1)
    low = torch.floor(places)
    part = places - low
    if mode == "linear":
        return [low, low + 1], [1 - part, part]
    near = [((cubic + 2) * t - (cubic + 3)) * t * t + 1 for t in (part, 1 - part)]
    far = [((cubic * t - 5 * cubic) * t + 8 * cubic) * t - 4 * cubic for t in (1 + part, 2 - part)]
    return [low - 1, low, low + 1, low + 2], [far[0], near[0], near[1], far[1]]
