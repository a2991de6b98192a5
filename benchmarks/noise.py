"""Random pictures as a dataset, and a label cache that has every answer: for timing, where no value matters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from compressor.core.contracts import Split, SplitName
from compressor.training.teaching.label_cache import LabelCache, LabelView


class Noise:
    """A dataset of random pictures in ten classes.

    Args:
        train: training images.
        test: validation and test images; two are enough where nothing is measured on them.
        seed: datasets of different seeds share no label cache.
        image_size: in pixels.
    """

    def __init__(self, train: int, *, test: int = 2, seed: int = 0, image_size: int = 32) -> None:
        self.name, self.class_names, self.image_size = "noise", tuple(map(str, range(10))), image_size
        self._counts, self._seed = {"train": train, "validation": test, "test": test}, seed

    def has(self, split: SplitName) -> bool:
        """Whether the split exists: all three do."""
        return split in self._counts

    def load(self, split: SplitName) -> Split:
        """The split's images, uint8 ``[N, 3, S, S]``, the same at each call."""
        n, side = self._counts[split], self.image_size
        generator = np.random.default_rng([self._seed, list(self._counts).index(split)])
        images = generator.integers(0, 256, (n, 3, side, side), dtype=np.uint8)
        return Split(images, np.arange(n) % len(self.class_names))


@contextmanager
def full_label_cache() -> Iterator[None]:
    """Runs that start inside the block find an answer to everything in their label cache; the answers are noise."""
    fresh = vars(LabelView)["fresh"]
    LabelView.fresh = staticmethod(_fill)  # type: ignore[method-assign]
    try:
        yield
    finally:
        LabelView.fresh = fresh  # type: ignore[method-assign]


def _fill(cache: LabelCache) -> LabelView:
    key = cache.key
    for image in range(key.images):
        logits = np.random.default_rng(image).standard_normal((key.variants, key.classes)).astype(np.float16)
        cache.write(np.full(key.variants, image), np.arange(key.variants), logits)
    return LabelView(np.ones((key.images, key.variants), dtype=np.bool_))
