"""What every dataset of this room is: names, a size, and one function for each split that it comes with."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from compressor.core.contracts import Split, SplitName
from compressor.core.errors import UnreadableDataError, UsageError


class LazyDataset:
    """Pictures in named splits, each decoded when first asked for and kept from then on."""

    def __init__(
        self,
        name: str,
        class_names: tuple[str, ...],
        image_size: int,
        loaders: Mapping[SplitName, Callable[[], Split]],
        hint: str = "",
    ) -> None:
        """Keep the loaders; ``hint`` tells the way out where a split is asked for that has none."""
        self.name = name
        self.class_names = class_names
        self.image_size = image_size
        self._loaders = loaders
        self._hint = hint
        self._loaded: dict[SplitName, Split] = {}

    def has(self, split: SplitName) -> bool:
        """Whether the dataset itself comes with this split."""
        return split in self._loaders

    def load(self, split: SplitName) -> Split:
        """Decode the split, or open its decoded cache.

        Raises:
            UnreadableDataError: the dataset has no such split, or a picture of it cannot be used.
        """
        if split not in self._loaders:
            raise UnreadableDataError(f"the dataset {self.name} has no {split} split.", self._hint)
        if split not in self._loaded:
            self._loaded[split] = self._loaders[split]()
        return self._loaded[split]


def refuse_argument(name: str, argument: str) -> None:
    """Raise UsageError where a dataset that has no argument was given one."""
    if argument:
        raise UsageError(f"the dataset {name} takes no argument, and {argument!r} was given.", f"Write --data {name}.")
