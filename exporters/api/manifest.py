"""``exporters.write_manifest``: a dataset's test images by digests, which bind a claim to data that is not at hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from compressor.core.errors import UsageError
from compressor.core.types import DatasetSpec
from compressor.system.files import AnyPath, as_path, write_text
from exporters.api.arguments import AnyData, as_data
from exporters.verification.given_images import GivenImages

if TYPE_CHECKING:
    from exporters.verification.manifest import Manifest

_IMAGE_SIZE = 32


def write_manifest(
    data: AnyData,
    output: AnyPath,
    *,
    data_dir: AnyPath | None = None,
    download: bool = False,
    image_size: int | None = None,
    force: bool = False,
) -> Manifest:
    """Write the digests of a dataset's test images, which ``verify(manifest=...)`` takes in place of the data.

    Args:
        data: the dataset by name, or opened. Arrays have no class names, which a manifest needs.
        output: the file to write.
        data_dir: where downloaded datasets lie.
        download: fetch the dataset if it is not there.
        image_size: side of the images in pixels (default: 32); an opened dataset keeps its own.
        force: replace an existing file.

    Returns:
        What was written.

    Raises:
        UsageError: the file is there already, or it is a folder. CompressError: the dataset cannot be used.

    Example:
        >>> from exporters import write_manifest
        >>> len(write_manifest("digits", "digits.txt", image_size=8).labels)
        500
    """
    from compressor.data.datasets import open_dataset
    from exporters.verification.manifest import make_manifest

    path = as_path(output) or Path()
    if path.is_dir():
        raise UsageError(f"{path} is a folder.", "Give --output a file.")
    if path.exists() and not force:
        raise UsageError(f"{path} exists already.", "Add --force to replace it, or choose another name.")
    source = as_data(data)
    if source is None or isinstance(source, GivenImages):
        raise UsageError("a manifest needs the names of the classes.", "Give a dataset by name, or opened.")
    if isinstance(source, DatasetSpec):
        source = open_dataset(
            source, data_dir=as_path(data_dir), download=download, image_size=image_size or _IMAGE_SIZE
        )
    made = make_manifest(source)
    write_text(path, made.to_text())
    return made
