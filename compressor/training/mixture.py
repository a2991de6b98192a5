"""Generated images beside the real ones: how many of them a share has, and which.

As in the released code of Wang et al. 2023, "Better Diffusion Models Further Improve Adversarial Training", each batch
has the same fraction of them, drawn at random with replacement, and an epoch keeps its number of steps.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from compressor.core.errors import UsageError
from compressor.data.extra_data import ExtraData
from compressor.numerics.randomness import derive_seed
from compressor.numerics.sampling import Indices, random_below
from compressor.runs.recipe import Recipe
from compressor.training.teaching.variants import recipe_variants

NO_LABEL = -1
"""The label of an image that has none: any use of it as a class is an error."""


class GeneratedImages(NamedTuple):
    """Generated images of one share: uint8 ``[b, C, S, S]``, int64 labels ``[b]``, and variants ``[b]``."""

    pixels: NDArray[np.uint8]
    labels: Indices
    variants: Indices


def count_extra(fraction: float, size: int) -> int:
    """How many of ``size`` images are generated: ``round(fraction size)``, but one at least is real."""
    return min(round(fraction * size), size - 1)


def check_mixture(recipe: Recipe, shares: int, *, has_data: bool) -> None:
    """Refuse a fraction without data, data without a fraction, and shares too small to hold both kinds.

    Raises:
        UsageError: one of these.
    """
    fraction, size = recipe.extra_fraction, recipe.batch_size // shares
    if not has_data:
        if fraction:
            raise UsageError(
                f"a fraction of {fraction:g} of each batch is to be extra data, and no file is named.",
                "Add --extra-data FILE.npz, or leave --extra-fraction out.",
            )
        return
    if not fraction:
        raise UsageError(
            "there is extra data, and the fraction of each batch that it makes up is 0.",
            "Add --extra-fraction, such as 0.7 (Wang et al. 2023, with 1M images).",
        )
    if not 0 < round(fraction * size) < size:
        raise UsageError(
            f"a fraction of {fraction:g} of a share of {size} images leaves no room for both extra and real ones.",
            "Use another --extra-fraction, a larger --batch-size, or a smaller --accumulate.",
        )


def describe_mixture(recipe: Recipe, processes: int, data: ExtraData) -> str:
    """A sentence on what is mixed in, for the log."""
    shares = processes * recipe.accumulation
    extra = count_extra(recipe.extra_fraction, recipe.batch_size // shares) * shares
    labelled = "labelled" if data.labels is not None else "unlabelled"
    return f"extra data: {len(data):,} {labelled} images; they make up {extra} of the {recipe.batch_size} of a batch"


class Mixture:
    """Draws generated images, the same ones for any order of asking."""

    def __init__(self, recipe: Recipe, data: ExtraData) -> None:
        self._recipe, self._data = recipe, data

    def draw(self, epoch: int, step: int, first: int, count: int) -> GeneratedImages:
        """The generated images ``first`` to ``first + count - 1`` of a step, a function of (seed, epoch, step)."""
        seed, places = derive_seed(self._recipe.seed, "extra", epoch), np.arange(first, first + count)
        index = random_below(derive_seed(seed, "draw", step), places, len(self._data))
        labels = self._data.labels
        return GeneratedImages(
            pixels=self._data.images[index],
            labels=np.full(count, NO_LABEL) if labels is None else labels[index].astype(np.int64),
            variants=recipe_variants(self._recipe, seed, step, places),
        )
