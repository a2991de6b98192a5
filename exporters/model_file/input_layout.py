"""How a file wants its images: layout, batch and normalisation. Everything else speaks ``[B, C, H, W]`` in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.core.errors import UnreadableModelError, UsageError
from compressor.core.types import Normalization
from exporters.model_file.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor

Sizes = Sequence[int | None]
"""The sizes of an input or output; ``None`` where one is open."""
Images = np.ndarray[Any, np.dtype[np.float32]]

CHANNELS = (1, 3)


@dataclass(frozen=True)
class InputLayout:
    """How images ``[B, C, H, W]`` in [0, 1] become the input of a file.

    Attributes:
        image_shape: ``(C, H, W)``.
        classes: K, how many logits the file gives for an image.
        channels_last: whether the file takes ``[B, H, W, C]``.
        batch: how many images the file takes at once, where it takes only so many; ``None`` for any number.
        normalization: ``(x - mean) / std``, done outside the file; ``None`` for a file that takes [0, 1].
    """

    image_shape: tuple[int, int, int]
    classes: int
    channels_last: bool = False
    batch: int | None = None
    normalization: Normalization | None = None

    def of_array(self, images: Images) -> Images:
        """The file's input, contiguous, for images float32 ``[B, C, H, W]``."""
        if self.normalization is not None:
            mean, std = (np.asarray(row, dtype=np.float32).reshape(-1, 1, 1) for row in self._rows())
            images = (images - mean) / std
        return np.ascontiguousarray(images.transpose(0, 2, 3, 1) if self.channels_last else images)

    def of_tensor(self, images: Tensor) -> Tensor:
        """The same for a tensor, with its gradient: the arithmetic is equal to the bit."""
        if self.normalization is not None:
            mean, std = (images.new_tensor(row).reshape(-1, 1, 1) for row in self._rows())
            images = (images - mean) / std
        return images.permute(0, 2, 3, 1) if self.channels_last else images

    def _rows(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        assert self.normalization is not None
        return self.normalization.mean, self.normalization.std


@dataclass(frozen=True)
class DeclaredLayout:
    """What the sizes of a file's input and output say.

    Attributes:
        channels: C, 1 or 3.
        height: in pixels; ``None`` where the file leaves it open.
        width: likewise.
        classes: K.
        channels_last: whether the input is ``[B, H, W, C]``.
        batch: images at once; ``None`` for any number.
    """

    channels: int
    height: int | None
    width: int | None
    classes: int
    channels_last: bool
    batch: int | None

    def input_layout(self, given: Preprocessing | None = None) -> InputLayout:
        """The form with what the file leaves open filled in.

        Raises:
            UsageError: height and width are open and no image size is given, another is given than the file's, or the
                normalisation is one for another number of channels.
        """
        given = given or Preprocessing()
        side = given.image_size
        if side is not None and {self.height, self.width} - {None, side}:
            raise UsageError(
                f"the model takes images of {self.height}x{self.width}, not of {side}x{side}.",
                "Leave --image-size out.",
            )
        height, width = self.height or side, self.width or side
        if height is None or width is None:
            raise UsageError("the model takes images of any size.", "Say with --image-size which it is made for.")
        if given.normalization is not None and len(given.normalization.mean) not in (1, self.channels):
            raise UsageError(
                f"the normalisation is one for {len(given.normalization.mean)} channels, and the model's images have "
                f"{self.channels}.",
                "Give --mean and --std one number, or one for each channel.",
            )
        shape = (self.channels, height, width)
        return InputLayout(shape, self.classes, self.channels_last, self.batch, given.normalization)

    def __str__(self) -> str:
        sides = [str(size or "?") for size in (self.height, self.width)]
        axes = [*sides, str(self.channels)] if self.channels_last else [str(self.channels), *sides]
        return f"images of {'x'.join(axes)}, {'any number' if self.batch is None else self.batch} at once"


def read_declared_layout(image: Sizes, logits: Sizes) -> DeclaredLayout:
    """Tell layout, batch and classes by the sizes of a file's input and output.

    The first axis is the batch. Channels are the axis behind it if that is of size 1 or 3, else the last one. Axes of
    size one behind the logits are dropped.

    Args:
        image: of the input.
        logits: of the output.

    Raises:
        UnreadableModelError: these are not the input and output of an image classifier.
    """
    if len(image) != 4:
        raise UnreadableModelError("the model's input is not images [batch, channels, height, width].")
    channels_last = image[1] not in CHANNELS and image[3] in CHANNELS
    channels, height, width = (image[axis] for axis in ((3, 1, 2) if channels_last else (1, 2, 3)))
    if channels is None or channels not in CHANNELS:
        raise UnreadableModelError("the model's images do not have 1 or 3 channels.")
    if any(size is not None and size < 1 for size in (image[0], height, width)):
        raise UnreadableModelError("the model's input is empty.")
    if len(logits) < 2 or any(size != 1 for size in logits[2:]):
        raise UnreadableModelError("the model's output is not logits [batch, classes].")
    # An exporter that lost track of the batch leaves it open behind a fixed one; the other way round is no classifier.
    if logits[0] is not None and logits[0] != image[0]:
        raise UnreadableModelError("the model does not give one row of logits for each image.")
    if logits[1] is None or logits[1] < 2:
        raise UnreadableModelError("the model does not have a fixed number of 2 or more classes.")
    return DeclaredLayout(channels, height, width, logits[1], channels_last, image[0])
