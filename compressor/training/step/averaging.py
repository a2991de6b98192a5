"""Averages of the student's weights: what is validated, saved and exported while the student itself goes on training.

An average of weights is a model of its own. The student is what training attacks and moves; nothing flows back.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from compressor.core.contracts import Progress
from compressor.models.classifier import Classifier
from compressor.runs.recipe import Recipe
from compressor.system.process_group import ProcessGroup
from compressor.training.step.batch_statistics import estimate_statistics


class Average:
    """A model that follows the student; every process holds the same. This one follows nothing, and keeps nothing."""

    @property
    def model(self) -> Classifier:
        """What stands for the run now."""
        raise NotImplementedError

    def after_step(self, progress: Progress) -> None:
        """The student has made this step."""

    def after_epoch(self, epoch: int, on_batch: Callable[[], None]) -> None:
        """The student has finished this epoch, from 0; a second call for an epoch changes nothing more."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it over."""


class NoAverage(Average):
    """The student stands for itself, and saves itself."""

    def __init__(self, student: Classifier) -> None:
        self._student = student

    @property
    def model(self) -> Classifier:
        """The student."""
        return self._student


class ExponentialAverage(Average):
    """EMA: ``a <- d a + (1 - d) w`` after each step, with d as ``decay_at`` says.

    BatchNorm's running statistics are averaged like the weights. A layer's mean is to first order linear in the weights
    before it, so that the average of the statistics belongs to the average of the weights; the student's present ones
    belong to its present weights. (Wang et al.'s code takes the student's, at the end of each epoch.) Counters are
    copied.

    Source: Wang et al. 2023, "Better Diffusion Models Further Improve Adversarial Training", and its released code.

    Args:
        student: on its device; copied.
        recipe: decay and warm-up.
    """

    def __init__(self, student: Classifier, recipe: Recipe) -> None:
        self._average = _copy(student)
        self._student, self._recipe = student, recipe

    @property
    def model(self) -> Classifier:
        """The average."""
        return self._average

    def after_step(self, progress: Progress) -> None:
        """Move a little towards the student."""
        steps = progress.epoch * progress.steps + progress.step + 1
        warmup = self._recipe.ema_warmup * progress.epochs * progress.steps
        approach(self._average, self._student, 1 - decay_at(steps - warmup, self._recipe.ema_decay))

    def state_dict(self) -> dict[str, Any]:
        """The average."""
        return {"model": self._average.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it over."""
        self._average.load_state_dict(state["model"])


class StochasticAverage(Average):
    """SWA: the mean of the student's weights at the ends of epochs, from ``swa_start`` on.

    No student had these weights, and its running statistics don't fit them: they are estimated anew before the average
    is used. Until the first epoch counts, the student stands for itself.

    Source: Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better Generalization".

    Args:
        student: on its device; copied.
        recipe: its ``swa_start`` says which epoch is the first that counts, at the latest the last.
        images: an epoch's training images, augmented, ``[B, C, H, W]`` at a time: this process's share of them.
        process_group: the processes, whose statistics are averaged.
    """

    def __init__(
        self,
        student: Classifier,
        recipe: Recipe,
        images: Callable[[int], Iterable[torch.Tensor]],
        process_group: ProcessGroup,
    ) -> None:
        self._student, self._average = student, _copy(student)
        self._first = min(round(recipe.swa_start * recipe.epochs), recipe.epochs - 1)
        self._count = 0
        self._images, self._process_group = images, process_group

    @property
    def model(self) -> Classifier:
        """The average, if anything was averaged yet."""
        return self._average if self._count else self._student

    def after_epoch(self, epoch: int, on_batch: Callable[[], None]) -> None:
        """Take the student in, and estimate the average's statistics on the epoch's images."""
        if epoch < self._first:
            return
        if self._count == epoch - self._first:  # else an interruption came after it was taken in
            approach(self._average, self._student, 1 / (self._count + 1))
            self._count += 1
        estimate_statistics(self._average, self._images(epoch), self._process_group, on_batch)

    def state_dict(self) -> dict[str, Any]:
        """The average, and of how many epochs."""
        return {"model": self._average.state_dict(), "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it over."""
        self._average.load_state_dict(state["model"])
        self._count = int(state["count"])


def decay_at(step: float, decay: float) -> float:
    """``min(decay, (1 + t) / (10 + t))`` after a warm-up, and 0 before its end: there the average is the student.

    Args:
        step: t, the steps made since the warm-up's end; negative before it.
        decay: the largest, in [0, 1).

    Source: released code of Wang et al. 2023, after Gowal et al. 2020.
    """
    return 0.0 if step < 0 else min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def approach(average: torch.nn.Module, student: torch.nn.Module, weight: float) -> None:
    """``a <- a + weight (w - a)`` for parameters and floating buffers; other buffers are copied.

    Args:
        average: changed in place.
        student: of the same shape.
        weight: in [0, 1]; 1 copies.
    """
    mine, theirs = ((*model.parameters(), *model.buffers()) for model in (average, student))
    for a, w in zip(mine, theirs, strict=True):
        if a.is_floating_point():
            a.lerp_(w, weight)
        else:
            a.copy_(w)


def make_average(
    student: Classifier, recipe: Recipe, images: Callable[[int], Iterable[torch.Tensor]], process_group: ProcessGroup
) -> Average:
    """What the recipe's ``weight_average`` names; for the arguments see ``StochasticAverage``."""
    if recipe.weight_average == "ema":
        return ExponentialAverage(student, recipe)
    if recipe.weight_average == "swa":
        return StochasticAverage(student, recipe, images, process_group)
    return NoAverage(student)


def _copy(student: Classifier) -> Classifier:
    return copy.deepcopy(student).requires_grad_(False)
