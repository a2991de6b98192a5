"""Images that the verifier holds: the draw that a dataset's digest fixes, and whether the evidence is that draw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compressor.core.contracts import Dataset, SplitName
from compressor.data.datasets import DRAW_RULE, draw, split_digest
from exporters.claim.evidence import Bytes, Integers

SPLIT: SplitName = "test"


@dataclass(frozen=True, eq=False)
class EvidenceDraw:
    """The evidence draw of a dataset.

    Attributes:
        name: the dataset's name.
        digest: of its test split.
        total: images in that split.
        rule: the rule's name and version.
        class_names: in the order of the labels.
        images: uint8 ``[n, C, H, W]``.
        labels: int64 ``[n]``.
    """

    name: str
    digest: str
    total: int
    rule: str
    class_names: tuple[str, ...]
    images: Bytes
    labels: Integers


def draw_images(dataset: Dataset, n: int) -> EvidenceDraw:
    """Draw ``n`` images of the test split, or all where it has fewer, as its digest alone decides."""
    split = dataset.load(SPLIT)
    digest, total = split_digest(dataset, SPLIT), len(split)
    index = draw(digest, total=total, n=min(n, total))
    images, labels = np.asarray(split.images[index]), np.asarray(split.labels[index])
    return EvidenceDraw(dataset.name, digest, total, DRAW_RULE, tuple(dataset.class_names), images, labels)
