"""Which images come when: the index arithmetic of epochs, steps and shares.

Laps over the training images follow one another, each in an order of its own, and batches cut that sequence. A batch of
``batch_size`` images is parted into ``processes x accumulation`` shares, in order; each process works through its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from compressor.core.errors import UsageError
from compressor.numerics.augment import permutation
from compressor.numerics.sampling import Indices
from compressor.runs.recipe import Recipe
from compressor.training.mixture import count_extra
from compressor.training.teaching.variants import recipe_variants


@dataclass(frozen=True)
class Visit:
    """The images of one share.

    Attributes:
        index: positions of the real images among the training images, ``[b]``.
        variants: how each of them is augmented, ``[b]``.
        extra_first: the number of the share's first generated image within the step.
        extra: how many generated images follow the real ones.
    """

    index: Indices
    variants: Indices
    extra_first: int
    extra: int


class BatchPlan:
    """The order of a run's images, the same for any number of processes.

    Args:
        recipe: batch size, passes, seed, augmentation, fraction of generated images.
        images: how many real training images there are.
        processes: how many train together.

    Raises:
        UsageError: see ``count_shares``.
    """

    def __init__(self, recipe: Recipe, images: int, processes: int = 1) -> None:
        self._recipe, self._images = recipe, images
        self._shares = count_shares(recipe, processes)
        self._lap = lru_cache(maxsize=2)(lambda lap: permutation(recipe.seed, lap, images))

    @property
    def steps(self) -> int:
        """Steps in an epoch; a last batch is left out where its shares had fewer images than BatchNorm can use."""
        whole, rest = divmod(self._images, self._recipe.batch_size)
        return whole + (rest // self._shares > 1)

    @property
    def images_per_epoch(self) -> int:
        """How many images an epoch uses, over all processes."""
        return (self.steps - 1) * self._recipe.batch_size + self.images_in(self.steps - 1) if self.steps else 0

    def images_in(self, step: int) -> int:
        """How many images the step uses, over all processes: a last batch gives each share the same number."""
        rest = self._images - step * self._recipe.batch_size
        return min(self._recipe.batch_size, rest // self._shares * self._shares)

    def visit(self, epoch: int, step: int, number: int) -> Visit:
        """The images of a share.

        Args:
            epoch: from 0.
            step: of the epoch, from 0.
            number: of the share within the batch, over all processes, from 0.
        """
        size = self.images_in(step) // self._shares
        extra = self._extra_in(size)
        first = self._start(epoch, step) + number * (size - extra)
        index, variants = self._sequence(first, first + size - extra)
        return Visit(index, variants, number * extra, extra)

    def real_images(self, epoch: int) -> tuple[Indices, Indices]:
        """Positions and variants of all real images of an epoch, over all processes, in order."""
        first = self._start(epoch, 0)
        return self._sequence(first, first + self._real_per_epoch)

    @property
    def _real_per_epoch(self) -> int:
        return (self.steps - 1) * self._real_in(0) + self._real_in(self.steps - 1) if self.steps else 0

    def _real_in(self, step: int) -> int:
        """How many of the step's images are real, over all processes."""
        size = self.images_in(step) // self._shares
        return (size - self._extra_in(size)) * self._shares

    def _extra_in(self, size: int) -> int:
        fraction = self._recipe.extra_fraction
        return count_extra(fraction, size) if fraction else 0

    def _start(self, epoch: int, step: int) -> int:
        """Where in the sequence of all laps the step's first real image is."""
        # Without generated images each epoch is a lap of its own, though its last batch may be left out.
        per_epoch = self._real_per_epoch if self._recipe.extra_fraction else self._images
        return epoch * per_epoch + step * self._real_in(0)

    def _sequence(self, start: int, stop: int) -> tuple[Indices, Indices]:
        """Positions and variants from ``start`` to before ``stop`` in the sequence of all laps."""
        n, parts = self._images, []
        for lap in range(start // n, -(-stop // n)):
            index = self._lap(lap)[max(start - lap * n, 0) : stop - lap * n]
            parts.append((index, recipe_variants(self._recipe, self._recipe.seed, lap, index)))
        return np.concatenate([index for index, _ in parts]), np.concatenate([variants for _, variants in parts])


def count_shares(recipe: Recipe, processes: int) -> int:
    """Into how many shares a batch is parted.

    Raises:
        UsageError: it cannot be parted evenly, or the shares would have fewer than 2 images.
    """
    shares = processes * recipe.accumulation
    if recipe.batch_size % shares or recipe.batch_size < 2 * shares:
        raise UsageError(
            f"a batch of {recipe.batch_size} images can't be parted among {processes} process(es) with "
            f"{recipe.accumulation} pass(es) each.",
            f"Use a --batch-size that is a multiple of {shares}, of at least {2 * shares}.",
        )
    return shares
