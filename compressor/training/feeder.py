"""Brings images to the loop: each process's share of each batch, augmented on the device, with its soft labels.

A batch of ``batch_size`` images is parted into ``processes x accumulation`` shares, in order; each process works
through its own. What comes from the disk is fetched for the next share while the present one is computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compressor.augment import apply_variants, choose_variants, identity_variant, permutation, to_float
from compressor.contracts import Batch, Split
from compressor.errors import UsageError
from compressor.sampling import Indices
from compressor.team import Team
from compressor.training.recipe import Recipe
from compressor.training.soft_labels import Found, SoftLabels
from compressor.training.stopwatch import Stopwatch


@dataclass(frozen=True)
class Share:
    """What one process computes on at once.

    Attributes:
        batch: images, labels and perhaps the teacher's logits, on the device.
        step: of the epoch, from 0.
        number: of the share within the batch, over all processes; names its noise.
        is_first: whether it is this process's first of the step.
        is_last: whether it is its last.
        index: ``[B]``, positions among the training images.
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
    variants: Indices
    pixels: Tensor
    labels: Tensor
    found: Found | None


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


class Feeder:
    """Knows which images come when; the same for any number of processes.

    Args:
        recipe: batch size, seed, augmentation.
        training: the images that are trained on, perhaps memory-mapped.
        device: where the batches go.
        team: whose shares there are.
        soft_labels: asked for each image where the method wants the teacher's view of natural images.
        stopwatch: told how long fetching and the teacher take.

    Raises:
        UsageError: see ``count_shares``.
    """

    def __init__(
        self,
        recipe: Recipe,
        training: Split,
        device: torch.device,
        team: Team,
        soft_labels: SoftLabels | None,
        stopwatch: Stopwatch,
    ) -> None:
        self._recipe, self._device, self._team = recipe, device, team
        self._images, self._labels = training.images, training.labels
        self._origin = np.arange(len(training)) if training.origin is None else training.origin
        self.soft_labels, self._watch = soft_labels, stopwatch
        self._shares = count_shares(recipe, team.size)

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
        recipe, passes = self._recipe, self._recipe.accumulation
        order = permutation(recipe.seed, epoch, len(self._labels))
        numbers = range(self._team.rank * passes, (self._team.rank + 1) * passes)
        plan = [(step, number) for step in range(first_step, self.steps) for number in numbers]

        def fetch(step: int, number: int) -> _Fetched:
            size = self.images_in(step) // self._shares
            start = step * recipe.batch_size + number * size
            return self._fetch(epoch, order[start : start + size])

        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="feeder") as ahead:
            coming = [ahead.submit(fetch, *plan[0])] if plan else []
            for position, (step, number) in enumerate(plan):
                with self._watch.part("data"):
                    fetched = coming.pop().result()
                    coming = [ahead.submit(fetch, *plan[position + 1])] if position + 1 < len(plan) else []
                    x, y = self._to_device(fetched)
                logits = None
                if self.soft_labels is not None:
                    with self._watch.part("teacher"):
                        origin = self._origin[fetched.index]
                        logits = self.soft_labels.answer(x, origin, fetched.variants, fetched.found)
                yield Share(
                    batch=Batch(x, y, logits),
                    step=step,
                    number=number,
                    is_first=number == numbers[0],
                    is_last=number == numbers[-1],
                    index=torch.from_numpy(fetched.index),
                    variants=torch.from_numpy(fetched.variants),
                )

    def end_epoch(self, epoch: int) -> None:
        """Tell the soft labels which answers every process may count on from now on."""
        if self.soft_labels is not None:
            order = permutation(self._recipe.seed, epoch, len(self._labels))
            used = [order[s * self._recipe.batch_size :][: self.images_in(s)] for s in range(self.steps)]
            index = np.concatenate(used)
            self.soft_labels.end_epoch(self._origin[index], self._variants(epoch, index))

    def _fetch(self, epoch: int, index: Indices) -> _Fetched:
        """The part that needs no device and no torch arithmetic: a second thread of that would fight over the cores."""
        variants = self._variants(epoch, index)
        pixels, labels = torch.from_numpy(self._images[index]), torch.from_numpy(self._labels[index])
        if self._device.type == "cuda":
            pixels, labels = pixels.pin_memory(), labels.pin_memory()
        found = None
        if self.soft_labels is not None:
            found = self.soft_labels.look_up(self._origin[index], variants)
        return _Fetched(index, variants, pixels, labels, found)

    def _to_device(self, fetched: _Fetched) -> tuple[Tensor, Tensor]:
        pixels = fetched.pixels.to(self._device, non_blocking=True)
        if self._recipe.augmentation == "none":
            x = to_float(pixels)
        else:
            x = apply_variants(pixels, torch.from_numpy(fetched.variants).to(self._device, non_blocking=True))
        y = fetched.labels.to(self._device, non_blocking=True)
        return x.contiguous(memory_format=torch.channels_last), y

    def _variants(self, epoch: int, index: Indices) -> Indices:
        recipe = self._recipe
        if recipe.augmentation == "none":
            return np.full(len(index), identity_variant(recipe.image_size), dtype=np.int64)
        flip = recipe.augmentation == "crop-flip"
        return choose_variants(recipe.seed, epoch, index, recipe.image_size, flip=flip)
