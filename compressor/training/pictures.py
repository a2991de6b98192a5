"""The training images' pixels, on their way to the device: from its own memory where they fit, else from the host's."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from compressor.core.contracts import Split
from compressor.numerics.sampling import Indices

_SHARE_OF_MEMORY = 0.25


class HostPictures:
    """Pixels in the host's memory or in a mapped file: each batch's travel to the device.

    A batch comes in two moves: ``fetch`` beside the computation, ``bring`` in its order.

    Args:
        images: uint8 ``[N, C, H, W]``.
        device: where the computation is.
    """

    def __init__(self, images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], device: torch.device) -> None:
        self._images, self._device = images, device

    def fetch(self, index: Indices) -> Tensor:
        """Get ready what ``bring`` needs for the images at ``index`` ``[b]``; no arithmetic, from any thread."""
        return ready_to_travel(self._images[index], self._device)

    def bring(self, fetched: Tensor) -> Tensor:
        """Their pixels on the device, uint8 ``[b, C, H, W]``, without waiting for it."""
        return fetched.to(self._device, non_blocking=True)


class ResidentPictures(HostPictures):
    """Pixels that lie in the device's memory: only positions travel.

    Args:
        images: uint8 ``[N, C, H, W]``.
        device: where they are copied, once.
    """

    def __init__(self, images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], device: torch.device) -> None:
        self._pixels = torch.from_numpy(np.array(images)).to(device)  # a copy: a mapped file can't be written to

    def fetch(self, index: Indices) -> Tensor:
        """Get the positions ready."""
        return ready_to_travel(index, self._pixels.device)

    def bring(self, fetched: Tensor) -> Tensor:
        """Their pixels, from the device's own memory."""
        return self._pixels[fetched.to(self._pixels.device, non_blocking=True)]


def pictures_for(training: Split, device: torch.device) -> HostPictures:
    """Keep the images in a GPU's memory where they take at most a quarter of what is free there."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if training.images.nbytes <= _SHARE_OF_MEMORY * free:
            return ResidentPictures(training.images, device)
    return HostPictures(training.images, device)


def ready_to_travel(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]], device: torch.device) -> Tensor:
    """An array as a tensor that a GPU copies without keeping the CPU waiting: in pinned memory."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory() if device.type == "cuda" else tensor
