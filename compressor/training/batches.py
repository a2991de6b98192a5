"""Brings images to the loop: each process's share of each batch, augmented on the device, with its soft labels.

A batch of ``batch_size`` images is parted into ``processes x accumulation`` shares, in order; each process works
through its own. What comes from the disk is fetched for the next share while the present one is computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from compressor.core.contracts import Batch, Split
from compressor.core.errors import UsageError
from compressor.data.extra_data import ExtraData
from compressor.numerics.augment import apply_variants, permutation, to_float_tensor
from compressor.numerics.sampling import Indices
from compressor.runs.recipe import Recipe
from compressor.system.process_group import ProcessGroup
from compressor.training.mixture import Mixture
from compressor.training.teaching.soft_labels import NOT_CACHED, CachedLabels, SoftLabels
from compressor.training.teaching.variants import recipe_variants
from compressor.training.timing import Stopwatch


@dataclass(frozen=True)
class Share:
    """What one process computes on at once.

    Attributes:
        batch: images, labels and perhaps the teacher's logits, on the device.
        step: of the epoch, from 0.
        number: of the share within the batch, over all processes; names its noise.
        is_first: whether it is this process's first of the step.
        is_last: whether it is its last.
        index: ``[B]``, positions among the training images; ``NOT_CACHED`` for extra ones, which come last.
        variants: ``[B]``, how each was augmented.
    """

    batch: Batch
    step: int
    number: int
    is_first: bool
    is_last: bool
    index: Tensor
    variants: Tensor


@dataclass(frozen=True)
class _Fetched:
    """What can be got ready without the device."""

    index: Indices
    origin: Indices
    variants: Indices
    pixels: Tensor
    labels: Tensor
    found: CachedLabels | None


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


class BatchLoader:
    """Knows which images come when; the same for any number of processes.

    The training images are shown in laps: each lap shows all of them, in an order and in variants of its own. An epoch
    is a lap, but for extra data: it then takes a part of each batch, an epoch keeps its steps, and a lap takes longer.

    Args:
        recipe: batch size, seed, augmentation.
        training: the images that are trained on, perhaps memory-mapped.
        device: where the batches go.
        process_group: whose shares there are.
        soft_labels: asked for each image where the method wants the teacher's view of natural images.
        stopwatch: told how long fetching and the teacher take.
        extra: generated images, of which each share has the recipe's fraction.

    Raises:
        UsageError: see ``count_shares``.
    """

    def __init__(
        self,
        recipe: Recipe,
        training: Split,
        device: torch.device,
        process_group: ProcessGroup,
        soft_labels: SoftLabels | None,
        stopwatch: Stopwatch,
        extra: ExtraData | None = None,
    ) -> None:
        self._recipe, self._device, self._process_group = recipe, device, process_group
        self._images, self._labels = training.images, training.labels
        self._origin = np.arange(len(training)) if training.origin is None else training.origin
        self.soft_labels, self._watch = soft_labels, stopwatch
        self._shares = count_shares(recipe, process_group.size)
        self._mixture = None if extra is None else Mixture(recipe, extra)
        n = len(training)
        self._lap = lru_cache(maxsize=2)(lambda lap: permutation(recipe.seed, lap, n))

    @property
    def steps(self) -> int:
        """Steps in an epoch; a last batch is left out where its shares had fewer images than BatchNorm can use."""
        whole, rest = divmod(len(self._labels), self._recipe.batch_size)
        return whole + (rest // self._shares > 1)

    @property
    def images_per_epoch(self) -> int:
        """How many images an epoch uses, over all processes."""
        return (self.steps - 1) * self._recipe.batch_size + self.images_in(self.steps - 1) if self.steps else 0

    def images_in(self, step: int) -> int:
        """How many images the step uses, over all processes: a last batch gives each share the same number."""
        rest = len(self._labels) - step * self._recipe.batch_size
        return min(self._recipe.batch_size, rest // self._shares * self._shares)

    def shares(self, epoch: int, first_step: int) -> Iterator[Share]:
        """This process's shares of an epoch, from a step on, in order."""
        numbers = self._numbers
        plan = [(step, number) for step in range(first_step, self.steps) for number in numbers]

        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="feeder") as ahead:
            coming = [ahead.submit(self._fetch, epoch, *plan[0])] if plan else []
            for position, (step, number) in enumerate(plan):
                with self._watch.part("data"):
                    fetched = coming.pop().result()
                    coming = [ahead.submit(self._fetch, epoch, *after) for after in plan[position + 1 : position + 2]]
                    x, y = self._to_device(fetched)
                logits = None
                if self.soft_labels is not None:
                    with self._watch.part("teacher"):
                        logits = self.soft_labels.answer(x, fetched.origin, fetched.variants, fetched.found)
                yield Share(
                    batch=Batch(x, y, logits, self._recipe.label_smoothing),
                    step=step,
                    number=number,
                    is_first=number == numbers[0],
                    is_last=number == numbers[-1],
                    index=torch.from_numpy(fetched.index),
                    variants=torch.from_numpy(fetched.variants),
                )

    def images(self, epoch: int) -> Iterator[Tensor]:
        """This process's images of an epoch as it trained on them, ``[B, C, H, W]``, a share at a time."""
        for step in range(self.steps):
            for number in self._numbers:
                yield self._to_device(self._fetch(epoch, step, number, asks=False))[0]

    def end_epoch(self, epoch: int) -> None:
        """Tell the soft labels which answers every process may count on from now on."""
        if self.soft_labels is not None:
            start = self._start(epoch, 0)
            index, variants = self._visits(start, start + self._real_per_epoch)
            self.soft_labels.end_epoch(self._origin[index], variants)

    @property
    def _numbers(self) -> range:
        """This process's shares of each batch."""
        passes = self._recipe.accumulation
        return range(self._process_group.rank * passes, (self._process_group.rank + 1) * passes)

    @property
    def _real_per_epoch(self) -> int:
        return (self.steps - 1) * self._real_in(0) + self._real_in(self.steps - 1) if self.steps else 0

    def _real_in(self, step: int) -> int:
        """How many of the step's images are real, over all processes."""
        size = self.images_in(step) // self._shares
        return (size - self._extra_in(size)) * self._shares

    def _extra_in(self, size: int) -> int:
        return 0 if self._mixture is None else self._mixture.count(size)

    def _start(self, epoch: int, step: int) -> int:
        """The position of the step's first real image in the sequence of all laps."""
        per_epoch = len(self._labels) if self._mixture is None else self._real_per_epoch
        return epoch * per_epoch + step * self._real_in(0)

    def _visits(self, start: int, stop: int) -> tuple[Indices, Indices]:
        """Indices and variants of the real images from ``start`` to before ``stop`` in the sequence of all laps."""
        n, parts = len(self._labels), []
        for lap in range(start // n, -(-stop // n)):
            index = self._lap(lap)[max(start - lap * n, 0) : stop - lap * n]
            parts.append((index, self._variants(lap, index)))
        return np.concatenate([index for index, _ in parts]), np.concatenate([variants for _, variants in parts])

    def _fetch(self, epoch: int, step: int, number: int, *, asks: bool = True) -> _Fetched:
        """The part that needs no device and no torch arithmetic: a second thread of that would fight over the cores."""
        size = self.images_in(step) // self._shares
        extra = self._extra_in(size)
        start = self._start(epoch, step) + number * (size - extra)
        index, variants = self._visits(start, start + size - extra)
        images, classes, origin = self._images[index], self._labels[index], self._origin[index]
        if self._mixture is not None:
            drawn = self._mixture.draw(epoch, step, number * extra, extra)
            nowhere = np.full(extra, NOT_CACHED)
            index, origin = np.concatenate([index, nowhere]), np.concatenate([origin, nowhere])
            images, classes = np.concatenate([images, drawn.pixels]), np.concatenate([classes, drawn.labels])
            variants = np.concatenate([variants, drawn.variants])
        pixels, labels = torch.from_numpy(images), torch.from_numpy(classes)
        if self._device.type == "cuda":
            pixels, labels = pixels.pin_memory(), labels.pin_memory()
        found = self.soft_labels.look_up(origin, variants) if self.soft_labels is not None and asks else None
        return _Fetched(index, origin, variants, pixels, labels, found)

    def _to_device(self, fetched: _Fetched) -> tuple[Tensor, Tensor]:
        pixels = fetched.pixels.to(self._device, non_blocking=True)
        if self._recipe.augmentation == "none":
            x = to_float_tensor(pixels)
        else:
            x = apply_variants(pixels, torch.from_numpy(fetched.variants).to(self._device, non_blocking=True))
        y = fetched.labels.to(self._device, non_blocking=True)
        return x.contiguous(memory_format=torch.channels_last), y

    def _variants(self, lap: int, index: Indices) -> Indices:
        return recipe_variants(self._recipe, self._recipe.seed, lap, index)
