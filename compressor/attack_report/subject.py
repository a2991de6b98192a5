"""What an attack report examines: a model, and the few test images that its figures are drawn from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from compressor.core.reporting import OnProgress
from compressor.frozen import chunk_of, in_chunks, surrogate_of
from compressor.models.modes import module_mode
from compressor.numerics.augment import floats_on_host
from compressor.numerics.randomness import derive_seed, make_generator
from compressor.numerics.sampling import balanced_indices
from compressor.system.devices import full_float32

LARGEST_SAMPLE = 256

_CHECKED_WITH = 8


@dataclass(frozen=True, eq=False)
class AttackedSample:
    """A model and a sample of the images that it was attacked on.

    Attributes:
        model: logits ``[B, K]`` from images; it decides.
        attacked: what attacks differentiate instead; the model itself where there is no faster stand-in.
        x: the sample, float32 ``[n, C, H, W]`` in [0, 1], on the model's device.
        y: its labels, int64 ``[n]``.
        positions: where the sample lies among the evaluated images, int64 ``[n]``, ascending.
        classes: K.
        seed: what all noise is derived from.
        batch_size: images at once.
        on_progress: called with a part, what is done of it, and what there is to do; may raise to stop.
    """

    model: nn.Module
    attacked: nn.Module
    x: Tensor
    y: Tensor
    positions: NDArray[np.int64]
    classes: int
    seed: int
    batch_size: int = 128
    on_progress: OnProgress = lambda part, done, total: None

    def __len__(self) -> int:
        return len(self.y)

    def batches(self, part: str, *key: str) -> Iterator[tuple[Tensor, Tensor, Generator]]:
        """The sample in pieces ``(x, y, generator)``; the generator is named by the seed, the part and the piece."""
        self.on_progress(part, 0, len(self))
        for start in range(0, len(self), self.batch_size):
            piece = slice(start, start + self.batch_size)
            yield self.x[piece], self.y[piece], self.generator(part, *key, str(start))
            self.on_progress(part, min(start + self.batch_size, len(self)), len(self))

    def generator(self, *key: str) -> Generator:
        """A generator for the noise that ``key`` names."""
        return make_generator(self.seed, "attack report", *key)

    def logits(self, x: Tensor) -> Tensor:
        """The deciding model's logits ``[B, K]``, in eval mode, without a gradient."""
        with module_mode(self.model, training=False):
            return in_chunks(self.model, x, chunk_of(self.attacked))


@full_float32()
def draw_sample(
    model: nn.Module,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    *,
    classes: int,
    seed: int,
    samples: int = LARGEST_SAMPLE,
    batch_size: int = 128,
    device: torch.device | str = "cpu",
    surrogate: Callable[[Tensor], nn.Module] | None = None,
    on_progress: OnProgress | None = None,
) -> AttackedSample:
    """A model, on ``device`` already, with a class-balanced sample of its uint8 images, drawn by seed.

    ``surrogate`` makes what attacks differentiate, from a few images; by default ``surrogate_of`` the model does.
    """
    positions = balanced_indices(labels, samples, derive_seed(seed, "attack report", "sample"))
    x = floats_on_host(images[positions]).to(device)
    few = x[:_CHECKED_WITH]
    return AttackedSample(
        model,
        surrogate(few) if surrogate else surrogate_of(model, few),
        x,
        torch.from_numpy(labels[positions].astype(np.int64)).to(device),
        positions,
        classes,
        seed,
        batch_size,
        on_progress or (lambda part, done, total: None),
    )
