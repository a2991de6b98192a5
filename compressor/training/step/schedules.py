"""Schedules: the learning rate at any moment of a run, a pure function of its recipe."""

from __future__ import annotations

import math

from compressor.runs.recipe import Recipe

# torch's OneCycleLR begins at a twenty-fifth of the largest rate, and ends at a ten-thousandth of that.
_START = 1 / 25
_END = _START * 1e-4


def learning_rate_at(recipe: Recipe, epoch: float) -> float:
    """The learning rate at a moment, as the recipe's ``schedule`` says.

    Args:
        recipe: its ``learning_rate`` is the largest that any schedule reaches.
        epoch: fractional, from 0 to ``recipe.epochs``.
    """
    return _SCHEDULES[recipe.schedule](recipe, epoch)


def milestones(recipe: Recipe, epoch: float) -> float:
    """``lr decay^m``, with m of the milestones passed; they move in proportion to the run's length."""
    passed = sum(epoch * recipe.schedule_epochs >= milestone * recipe.epochs for milestone in recipe.milestones)
    return recipe.learning_rate * recipe.decay**passed


def cosine(recipe: Recipe, epoch: float) -> float:
    """``lr (1 + cos(pi epoch / epochs)) / 2``: from the largest rate to zero.

    Source: Loshchilov and Hutter 2017, "SGDR", eq. 5, without restarts.
    """
    return _anneal(recipe.learning_rate, 0.0, epoch / recipe.epochs)


def one_cycle(recipe: Recipe, epoch: float) -> float:
    """From ``lr / 25`` up to ``lr`` and down to ``lr / 250,000``, each way half a cosine.

    Source: Smith and Topin 2019, "Super-Convergence", in the shape and with the numbers of torch's ``OneCycleLR``; the
    momentum stays as it is.
    """
    peak, rise, done = recipe.learning_rate, recipe.rise_fraction, epoch / recipe.epochs
    if done < rise:
        return _anneal(peak * _START, peak, done / rise)
    return _anneal(peak, peak * _END, (done - rise) / (1 - rise))


def _anneal(start: float, end: float, done: float) -> float:
    """Half a cosine from ``start`` (0 done) to ``end`` (1 done)."""
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


_SCHEDULES = {"milestones": milestones, "cosine": cosine, "one-cycle": one_cycle}
