"""How the recipe augments: the variant of each image at each of its turns."""

from __future__ import annotations

import numpy as np

from compressor.numerics.augment import choose_variants, identity_variant
from compressor.numerics.sampling import Indices
from compressor.runs.recipe import Recipe


def recipe_variants(recipe: Recipe, seed: int, turn: int, positions: Indices) -> Indices:
    """The variants ``[b]`` of images under the recipe's augmentation, a function of (seed, turn, position) alone.

    Args:
        recipe: augmentation and image size.
        seed: names the stream; for real images the run's seed.
        turn: for real images, how often all of them have been shown before.
        positions: ``[b]``; for real images, their positions among the training images.
    """
    if recipe.augmentation == "none":
        return np.full(len(positions), identity_variant(recipe.image_size), dtype=np.int64)
    return choose_variants(seed, turn, positions, recipe.image_size, flip=recipe.augmentation == "crop-flip")
