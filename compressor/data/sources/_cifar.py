"""What CIFAR-10 and CIFAR-100 share: torchvision's readers, behind our own errors."""

from __future__ import annotations

import contextlib
import hashlib
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from torchvision.datasets.utils import check_integrity

from compressor.core.contracts import Dataset, Split
from compressor.core.errors import MissingDataError, UnreadableDataError, WriteError
from compressor.data.sources._cache import cached_images
from compressor.data.sources._dataset import LazyDataset, refuse_argument
from compressor.data.sources._decoding import resize_arrays
from compressor.data.sources._pictures import Pixels, printable_path

_DEFAULT_DATA_DIR = Path("data")
_OWN_SIZE = 32


def open_cifar(
    reader: Any, name: str, argument: str, *, data_dir: Path | None, download: bool, image_size: int
) -> Dataset:
    """Open a dataset of torchvision's CIFAR readers; nothing is unpickled before its checksum was compared.

    Args:
        reader: torchvision's class, such as ``torchvision.datasets.CIFAR10``.
        name: the dataset's name here.
        argument: must be empty.
        data_dir: the folder that holds ``reader.base_folder``, or that folder itself; ``data`` if ``None``.
        download: fetch the archive where it is absent; an archive that is there is unpacked in any case.
        image_size: 32 leaves the pictures as they are; other sizes resample them.

    Raises:
        MissingDataError: absent, and not to be downloaded, or the download failed.
        UnreadableDataError: a file is there and its checksum is wrong.
    """
    refuse_argument(name, argument)
    root = data_dir or _DEFAULT_DATA_DIR
    if root.name == reader.base_folder:
        root = root.parent
    try:
        _make_available(reader, name, root, download)
    except OSError as error:
        raise MissingDataError(
            f"{name} cannot be read in {printable_path(root)}: {(error.strerror or 'unknown reason').lower()}.",
            "Name another folder with --data-dir DIR.",
        ) from error
    test = _read(reader, root, train=False)

    def load(train: bool) -> Split:
        source = _read(reader, root, train=True) if train else test
        images = np.ascontiguousarray(source.data.transpose(0, 3, 1, 2))
        labels = np.asarray(source.targets, dtype=np.int64)
        return Split(images if image_size == _OWN_SIZE else _resized(name, images, image_size), labels)

    return LazyDataset(
        name, tuple(test.classes), image_size, {"train": lambda: load(True), "test": lambda: load(False)}
    )


def _make_available(reader: Any, name: str, root: Path, download: bool) -> None:
    folder, archive = root / reader.base_folder, root / reader.filename
    if folder.is_dir():
        _check_files(reader, name, folder)
        return
    if archive.is_file() and not check_integrity(archive, reader.tgz_md5):
        raise UnreadableDataError(
            f"the archive {printable_path(archive)} is damaged: its checksum is wrong.", "Delete it and fetch it again."
        )
    if not archive.is_file() and not download:
        raise MissingDataError(
            f"{name} is not in {printable_path(root)}.",
            f"Add --download to fetch it, or --data-dir DIR for the folder that holds {reader.base_folder}.",
        )
    _fetch(reader, name, root)


def _check_files(reader: Any, name: str, folder: Path) -> None:
    listed = [*reader.train_list, *reader.test_list, [reader.meta["filename"], reader.meta["md5"]]]
    for file_name, md5 in listed:
        if not check_integrity(folder / file_name, md5):
            reason = "is damaged: its checksum is wrong" if (folder / file_name).is_file() else "is missing"
            raise UnreadableDataError(
                f"the file {printable_path(folder / file_name)} of {name} {reason}.",
                f"Delete the folder {reader.base_folder} and fetch it again with --download.",
            )


def _fetch(reader: Any, name: str, root: Path) -> None:
    """Download the archive where it is absent, and unpack it; torchvision compares its checksum before."""
    try:
        # Standard output belongs to the command's answer; torchvision may print to it.
        with contextlib.redirect_stdout(sys.stderr):
            reader(str(root), download=True)
    except (RuntimeError, OSError) as error:
        if isinstance(error, PermissionError) or (isinstance(error, OSError) and error.errno and error.filename):
            raise WriteError(
                f"cannot write {name} to {printable_path(root)}: {(error.strerror or str(error)).lower()}.",
                "Choose another folder with --data-dir DIR.",
            ) from error
        raise MissingDataError(
            f"{name} could not be fetched: {str(error).strip().rstrip('.')}.",
            f"Check the network, or put {reader.filename} into {printable_path(root)} by hand.",
        ) from error


def _read(reader: Any, root: Path, *, train: bool) -> Any:
    with warnings.catch_warnings():
        # The archives were written by an old NumPy, in a form that some later versions (2.4.0) warn of.
        warnings.simplefilter("ignore")
        return reader(str(root), train=train)


def _resized(name: str, images: Pixels, size: int) -> Pixels:
    content = hashlib.sha256(images.data).hexdigest()[:32]
    return cached_images(
        f"{name}-{content}-{size}-{PIL.__version__}.npy",
        (len(images), 3, size, size),
        lambda: resize_arrays(images, size),
    )
