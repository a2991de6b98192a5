"""Your own pictures: imagefolder:DIR with DIR/train/CLASS/*.jpg, DIR/test/CLASS/*.jpg and perhaps DIR/val."""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import PIL

from compressor.core.contracts import Dataset, OpenDataset, Split, SplitName
from compressor.core.errors import MissingDataError, UnreadableDataError, UsageError
from compressor.data.sources._cache import cached_images
from compressor.data.sources._dataset import LazyDataset
from compressor.data.sources._decoding import decode_files
from compressor.data.sources._pictures import SUFFIXES, printable_path

_DECODE_VERSION = 1
_FOLDERS: dict[SplitName, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("val", "valid", "validation"),
    "test": ("test",),
}
_LAYOUT = "Lay it out as DIR/train/CLASS/picture.jpg and DIR/test/CLASS/picture.jpg."


@dataclass(frozen=True)
class _Listing:
    """The picture files of one split, by class, each class sorted by name."""

    folder: Path
    by_class: dict[str, list[Path]]


def open_imagefolder(argument: str, *, data_dir: Path | None, download: bool, image_size: int) -> Dataset:
    """Open the folder ``argument``, taken from ``data_dir`` where that is given and ``argument`` is relative.

    Class indices are the sorted class folders of ``train`` (of ``test`` where there is no ``train``), and hold for
    every split. ``download`` has no meaning here. Only files whose names end as pictures do are read, at any depth
    below the class folder; names that begin with a dot are passed over.

    Raises:
        UsageError: no folder was named.
        MissingDataError: there is no such folder.
        UnreadableDataError: another layout, no pictures, or a class that the training split does not have.
    """
    if not argument:
        raise UsageError("the dataset imagefolder needs a folder.", "Write --data imagefolder:DIR.")
    root = _find(argument, data_dir)
    try:
        listings = {split: _list(folder) for split, folder in _split_folders(root).items()}
    except OSError as error:
        name = printable_path(Path(error.filename or root))
        raise UnreadableDataError(
            f"the folder {name} cannot be listed: {(error.strerror or 'unknown reason').lower()}.",
            "Check its permissions.",
        ) from error
    class_names = _class_names(root, listings)
    for listing in listings.values():
        _check(listing, class_names)
    loaders = {split: partial(_load, listing, class_names, image_size) for split, listing in listings.items()}
    return LazyDataset("imagefolder", class_names, image_size, loaders, f"{printable_path(root)}: {_LAYOUT}")


def _find(argument: str, data_dir: Path | None) -> Path:
    root = (data_dir or Path()) / argument
    try:
        root = (data_dir or Path()) / Path(argument).expanduser()
        if root.is_dir():
            return root
        fault = "is not a folder" if root.exists() else "does not exist"
    except OSError as error:
        fault = f"cannot be opened: {(error.strerror or 'unknown reason').lower()}"
    except RuntimeError:
        fault = "begins with a user who does not exist"
    raise MissingDataError(
        f"the picture folder {printable_path(root)} {fault}.", "Give its path: --data imagefolder:DIR."
    )


def _split_folders(root: Path) -> dict[SplitName, Path]:
    folders: dict[SplitName, Path] = {}
    for split, names in _FOLDERS.items():
        present = [name for name in names if (root / name).is_dir()]
        if len(present) > 1:
            raise UnreadableDataError(
                f"the folder {printable_path(root)} has both {present[0]} and {present[1]}, two {split} splits.",
                "Keep one.",
            )
        if present:
            folders[split] = root / present[0]
    if "train" not in folders and "test" not in folders:
        raise UnreadableDataError(f"the folder {printable_path(root)} has neither train nor test in it.", _LAYOUT)
    return folders


def _list(folder: Path) -> _Listing:
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return _Listing(folder, {name: _pictures(folder / name) for name in classes})


def _pictures(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise error

    found: list[Path] = []
    for parent, children, files in os.walk(folder, onerror=refuse):
        children[:] = [name for name in children if not name.startswith(".")]
        found.extend(
            Path(parent, name) for name in files if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
        )
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _class_names(root: Path, listings: dict[SplitName, _Listing]) -> tuple[str, ...]:
    listing = listings.get("train") or listings["test"]
    names = tuple(listing.by_class)
    if not names:
        raise UnreadableDataError(f"the folder {printable_path(listing.folder)} holds no class folders.", _LAYOUT)
    if len(names) < 2:
        raise UnreadableDataError(
            f"the folder {printable_path(listing.folder)} has one class only, {names[0]!r}.",
            "A classifier needs two or more.",
        )
    for name in names:
        if not name.isprintable():
            raise UnreadableDataError(
                f"the class folder {name!r} in {printable_path(root)} has a name that is not plain text.", "Rename it."
            )
        if "train" in listings and not listing.by_class[name]:
            raise UnreadableDataError(
                f"the class folder {printable_path(listing.folder / name)} holds no pictures.",
                f"Known endings: {' '.join(sorted(SUFFIXES))}.",
            )
    return names


def _check(listing: _Listing, class_names: tuple[str, ...]) -> None:
    for name in listing.by_class:
        if name not in class_names:
            raise UnreadableDataError(
                f"the class {name!r} in {printable_path(listing.folder)} is not among the {len(class_names)} training "
                "classes.",
                "Class folders must have the names that they have in train.",
            )
    if not any(listing.by_class.values()):
        raise UnreadableDataError(
            f"the folder {printable_path(listing.folder)} holds no pictures.",
            f"Known endings: {' '.join(sorted(SUFFIXES))}. {_LAYOUT}",
        )


def _load(listing: _Listing, class_names: tuple[str, ...], image_size: int) -> Split:
    paths = [path for files in listing.by_class.values() for path in files]
    counts = [len(listing.by_class.get(name, ())) for name in class_names]
    images = cached_images(
        f"imagefolder-{_cache_key(listing.folder, paths, image_size)}.npy",
        (len(paths), 3, image_size, image_size),
        lambda: decode_files(paths, image_size),
    )
    return Split(images, np.repeat(np.arange(len(class_names)), counts).astype(np.int64))


def _cache_key(folder: Path, paths: list[Path], image_size: int) -> str:
    """A digest of names, sizes and times: it changes when a picture, the folder, the size or the decoder changes."""
    digest = hashlib.sha256(f"{_DECODE_VERSION}\0{PIL.__version__}\0{image_size}\0".encode())
    digest.update(os.fsencode(folder.resolve()) + b"\0")
    for path in paths:
        try:
            status = path.stat()
        except OSError as error:
            raise UnreadableDataError(
                f"the picture {printable_path(path)} cannot be used: {(error.strerror or 'unknown reason').lower()}.",
                "Repair or remove this file.",
            ) from error
        digest.update(os.fsencode(path.relative_to(folder)) + b"\0")
        digest.update(struct.pack("<qq", status.st_size, status.st_mtime_ns))
    return digest.hexdigest()[:40]


DATASET: OpenDataset = open_imagefolder
