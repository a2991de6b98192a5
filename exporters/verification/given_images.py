"""Images that the caller holds in memory, as a dataset for the verifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.core.contracts import Dataset, Split, SplitName
from compressor.core.errors import ClassMismatchError, UnreadableDataError

if TYPE_CHECKING:
    from exporters.claim.evidence import Bytes, Integers

GIVEN = "arrays"
_SPLIT: SplitName = "test"


@dataclass(frozen=True, eq=False)
class GivenImages:
    """Labelled images, not yet named by a model's classes.

    Attributes:
        images: uint8 ``[N, C, H, W]``.
        labels: int64 ``[N]``, the positions of the right logits.
        name: what reports call them.
        class_names: in the order of the logits; None takes the names that the model file claims.
    """

    images: Bytes
    labels: Integers
    name: str = GIVEN
    class_names: tuple[str, ...] | None = None

    @classmethod
    def of_dataset(cls, dataset: Dataset) -> GivenImages:
        """The test split of an opened dataset."""
        split = dataset.load(_SPLIT)
        return cls(split.images, split.labels, dataset.name, tuple(dataset.class_names))

    def as_dataset(self, class_names: tuple[str, ...]) -> Dataset:
        """The images as a dataset whose classes have these names, unless they have names of their own.

        Raises:
            ClassMismatchError: a label is none of these classes.
        """
        names = self.class_names or class_names
        largest = int(self.labels.max(initial=-1))
        if largest >= len(names):
            raise ClassMismatchError(
                f"the labels go up to {largest}, and the model has {len(names)} classes.",
                "Give labels from 0 to the number of classes less 1.",
            )
        return _Images(self.name, names, Split(self.images, self.labels))


class _Images:
    """A dataset with a test split alone."""

    def __init__(self, name: str, class_names: tuple[str, ...], test: Split) -> None:
        self.name = name
        self.class_names = class_names
        self.image_size: int = test.images.shape[-1]
        self._test = test

    def has(self, split: SplitName) -> bool:
        """Whether this is the test split."""
        return split == _SPLIT

    def load(self, split: SplitName) -> Split:
        """The images.

        Raises:
            UnreadableDataError: another split is asked for.
        """
        if split != _SPLIT:
            raise UnreadableDataError(f"{self.name} has no {split} split.", "Name a dataset that has one with --data.")
        return self._test
