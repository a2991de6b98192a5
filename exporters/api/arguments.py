"""Arguments as people give them: a path in any form, a dataset by name, opened or as arrays, a radius as a number."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from compressor.core.contracts import Dataset, SplitName
from compressor.core.types import DatasetSpec, eps_text
from compressor.system.files import AnyPath, as_path
from exporters.verification.given_images import GivenImages

BEST = "best.safetensors"
"""The checkpoint that a run's folder stands for."""

Pair = tuple[Any, Any]
"""Images ``[N, C, H, W]`` and labels ``[N]``, as arrays or tensors."""

AnyData = str | DatasetSpec | Dataset | Pair | Mapping[SplitName, Pair]
"""A dataset as ``--data`` names it, an opened one, or arrays: test images, or images by the names of splits."""


def file_of(given: AnyPath, name: str) -> Path:
    """The file that was given, or the one of this name where that is a folder with such a file, as a run's folder is.

    Raises:
        UsageError: it has no path.
    """
    path = as_path(given)
    assert path is not None  # None is not taken here
    return path / name if (path / name).is_file() else path


def as_data(given: AnyData | None) -> DatasetSpec | Dataset | GivenImages | None:
    """The images that were given, unopened where they were named.

    Raises:
        UsageError: it is nothing of the kind. UnreadableDataError: arrays of another shape, type or range.
    """
    if given is None or isinstance(given, DatasetSpec):
        return given
    if isinstance(given, str):
        return DatasetSpec.parse(given)
    if hasattr(given, "load"):
        return cast(Dataset, given)
    from compressor.api.datasets import as_dataset

    test = as_dataset(given, "test").load("test")
    return GivenImages(test.images, test.labels)


def as_eps(given: str | float | None) -> str | None:
    """A radius as text; None stays None."""
    return None if given is None else eps_text(given)
