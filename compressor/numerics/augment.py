"""Augmentation by number: a training image is (index, variant), and a variant is a crop offset and a flip.

With a padding of ``p = image_size // 8`` there are ``(2p + 1)^2`` crops and two sides: 162 variants at 32 pixels.
Variant ``(dy * (2p + 1) + dx) * 2 + flip`` is the picture, padded with ``p`` zeros on each side, cut at row ``dy`` and
column ``dx``, then flipped left to right if ``flip`` is 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.numerics.randomness import derive_seed
from compressor.numerics.sampling import Indices, random_below, random_order


def crop_padding(image_size: int) -> int:
    """How many zeros are padded on each side before a crop: an eighth of the side, 4 at 32 pixels."""
    return image_size // 8


def variant_count(image_size: int) -> int:
    """How many variants an image has: ``(2p + 1)^2 * 2``, 162 at 32 pixels."""
    return (2 * crop_padding(image_size) + 1) ** 2 * 2


def choose_variants(seed: int, epoch: int, indices: Indices, image_size: int = 32, *, flip: bool = True) -> Indices:
    """The variant of each sample in an epoch, uniform, a function of (seed, epoch, index) alone.

    Args:
        seed: the run's seed.
        epoch: counts from 0.
        indices: positions of the samples in the training split, any shape.
        image_size: the side of the pictures, in pixels.
        flip: whether half of the variants are mirrored; off for pictures such as digits, which have a side.

    Returns:
        int64 of the same shape, from 0 to ``variant_count(image_size) - 1``.
    """
    variants = random_below(derive_seed(seed, "augment", epoch), indices, variant_count(image_size))
    return variants if flip else variants - variants % 2


def permutation(seed: int, epoch: int, n: int) -> Indices:
    """The order ``[n]`` in which an epoch visits ``n`` samples, a function of (seed, epoch, n) alone."""
    return random_order(derive_seed(seed, "order", epoch), n)


def to_float_tensor(images: Tensor) -> Tensor:
    """Images as float32 in [0, 1]: ``fl(u / 255)``, the float32 nearest to the quotient, on every device.

    Args:
        images: uint8, any shape.
    """
    # Divided by a tensor of the same device: by a Python number, CUDA multiplies by the rounded 1/255 instead. It is
    # filled there, since a number that travels keeps the CPU waiting.
    return images.to(torch.float32) / torch.full((), 255.0, device=images.device)


def floats_on_host(images: np.ndarray[Any, np.dtype[np.uint8]]) -> Tensor:
    """Images as ``to_float_tensor`` gives them, from an array of any shape; computed and left in the host's memory."""
    return torch.from_numpy(images.astype(np.float32) / np.float32(255))


def apply_variants(images: Tensor, variants: Tensor) -> Tensor:
    """Crop and flip each image as its variant says.

    Args:
        images: uint8 ``[B, C, S, S]``, on any device; not changed.
        variants: integers ``[B]``, each from 0 to ``variant_count(S) - 1``.

    Returns:
        float32 ``[B, C, S, S]`` in [0, 1], on the images' device; zero where the crop leaves the picture.
    """
    return to_float_tensor(cut_variants(F.pad(images, (crop_padding(images.shape[-1]),) * 4), variants))


def cut_variants(frames: Tensor, variants: Tensor) -> Tensor:
    """Cut each variant out of its padded frame.

    Args:
        frames: ``[B, C, S + 2p, S + 2p]``, of any type, with ``p = crop_padding(S)``.
        variants: integers ``[B]``.

    Returns:
        ``[B, C, S, S]`` of the same type and device.
    """
    return frames[_places(frames, variants)]


def paste_variants(frames: Tensor, parts: Tensor, variants: Tensor) -> Tensor:
    """Put each part back where ``cut_variants`` would take it from; the rest of a frame stays.

    Args:
        frames: ``[B, C, S + 2p, S + 2p]``; not changed.
        parts: ``[B, C, S, S]`` of the same type.
        variants: integers ``[B]``.
    """
    pasted = frames.clone()
    pasted[_places(frames, variants)] = parts
    return pasted


def identity_variant(image_size: int) -> int:
    """The variant that is the picture as it was: cut from the middle, not flipped."""
    padding = crop_padding(image_size)
    return (padding * (2 * padding + 1) + padding) * 2


def _places(frames: Tensor, variants: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Broadcastable indices, ``[B, C, S, S]`` together, of the pixels that each variant shows."""
    batch, channels, padded, _ = frames.shape
    # A frame is S + 2 (S // 8) wide: with S = 8 q + r, that is 10 q + r.
    side = 8 * (padded // 10) + padded % 10
    offsets = 2 * crop_padding(side) + 1
    device = frames.device
    variants = variants.to(device=device, dtype=torch.int64)
    crop, flip = variants.div(2, rounding_mode="floor"), variants.remainder(2).bool()
    dy, dx = crop.div(offsets, rounding_mode="floor"), crop.remainder(offsets)

    along = torch.arange(side, device=device)
    rows = dy[:, None] + along
    columns = dx[:, None] + torch.where(flip[:, None], along.flip(0), along)
    return (
        torch.arange(batch, device=device)[:, None, None, None],
        torch.arange(channels, device=device)[None, :, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    )
