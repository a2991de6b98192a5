"""Brings images to the loop: each process's share of each batch, augmented on the device, with its soft labels.

What comes from the disk is fetched for the next share while the present one is computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compressor.core.contracts import Batch, Split
from compressor.data.extra_data import ExtraData
from compressor.numerics.augment import apply_variants, to_float_tensor
from compressor.numerics.sampling import Indices
from compressor.runs.recipe import Recipe
from compressor.system.process_group import ProcessGroup
from compressor.training.mixture import Mixture
from compressor.training.pictures import pictures_for, ready_to_travel
from compressor.training.plan import BatchPlan
from compressor.training.teaching.soft_labels import NOT_CACHED, CachedLabels, SoftLabels
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
    """What can be got ready without the device; ``pixels`` and ``extra`` become images there."""

    index: Indices
    origin: Indices
    variants: Indices
    pixels: Tensor
    extra: Tensor | None
    turns: Tensor
    labels: Tensor
    found: CachedLabels | None


class BatchLoader:
    """The training images, in the order of the run's plan.

    Args:
        recipe: batch size, passes, seed, augmentation.
        training: the images.
        device: where they go.
        process_group: the processes.
        soft_labels: asked where the method wants the teacher's view of natural images.
        stopwatch: told how long fetching and the teacher take.
        extra: generated images, of which each share has the recipe's fraction.

    Attributes:
        plan: which images come when.
        soft_labels: see above.

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
        self._labels = training.labels
        self._origin = np.arange(len(training)) if training.origin is None else training.origin
        self.soft_labels, self._watch = soft_labels, stopwatch
        self._mixture = None if extra is None else Mixture(recipe, extra)
        self.plan = BatchPlan(recipe, len(training), process_group.size)
        self._pictures = pictures_for(training, device)

    def shares(self, epoch: int, first_step: int) -> Iterator[Share]:
        """This process's shares of an epoch, from a step on, in order."""
        numbers = self._numbers
        coming_shares = [(step, number) for step in range(first_step, self.plan.steps) for number in numbers]

        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as ahead:
            coming = [ahead.submit(self._fetch, epoch, *coming_shares[0])] if coming_shares else []
            for position, (step, number) in enumerate(coming_shares):
                with self._watch.part("data"):
                    fetched = coming.pop().result()
                    following = coming_shares[position + 1 : position + 2]
                    coming = [ahead.submit(self._fetch, epoch, *after) for after in following]
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
        for step in range(self.plan.steps):
            for number in self._numbers:
                yield self._to_device(self._fetch(epoch, step, number, asks=False))[0]

    def end_epoch(self, epoch: int) -> None:
        """Tell the soft labels which answers every process may count on from now on."""
        if self.soft_labels is not None:
            index, variants = self.plan.real_images(epoch)
            self.soft_labels.end_epoch(self._origin[index], variants)

    @property
    def _numbers(self) -> range:
        """This process's shares of each batch."""
        passes = self._recipe.accumulation
        return range(self._process_group.rank * passes, (self._process_group.rank + 1) * passes)

    def _fetch(self, epoch: int, step: int, number: int, *, asks: bool = True) -> _Fetched:
        """The part that needs no device and no torch arithmetic: a second thread of that would fight over the cores."""
        visit = self.plan.visit(epoch, step, number)
        pixels = self._pictures.fetch(visit.index)
        index, variants, extra = visit.index, visit.variants, None
        classes, origin = self._labels[index], self._origin[index]
        if self._mixture is not None:
            drawn = self._mixture.draw(epoch, step, visit.extra_first, visit.extra)
            nowhere = np.full(visit.extra, NOT_CACHED)
            index, origin = np.concatenate([index, nowhere]), np.concatenate([origin, nowhere])
            classes, variants = np.concatenate([classes, drawn.labels]), np.concatenate([variants, drawn.variants])
            extra = ready_to_travel(drawn.pixels, self._device)
        return _Fetched(
            index=index,
            origin=origin,
            variants=variants,
            pixels=pixels,
            extra=extra,
            turns=ready_to_travel(variants, self._device),
            labels=ready_to_travel(classes, self._device),
            found=self.soft_labels.look_up(origin, variants) if self.soft_labels is not None and asks else None,
        )

    def _to_device(self, fetched: _Fetched) -> tuple[Tensor, Tensor]:
        pixels = self._pictures.bring(fetched.pixels)
        if fetched.extra is not None:
            pixels = torch.cat([pixels, fetched.extra.to(self._device, non_blocking=True)])
        if self._recipe.augmentation == "none":
            x = to_float_tensor(pixels)
        else:
            x = apply_variants(pixels, fetched.turns.to(self._device, non_blocking=True))
        y = fetched.labels.to(self._device, non_blocking=True)
        return x.contiguous(memory_format=torch.channels_last), y
