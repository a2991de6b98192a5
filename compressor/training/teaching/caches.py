"""What lies in the cache folder: listed, checked, and removed by choice. Only this project's own files are touched."""

from __future__ import annotations

import stat
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from compressor.core.errors import MissingInputError, WriteError
from compressor.data.sources._cache import decoded_shape
from compressor.system.cache_folder import cache_folder
from compressor.training.teaching.label_file import disk_bytes, open_label_file

Kind = Literal["labels", "decoded"]

SUFFIXES: dict[Kind, str] = {"labels": ".labels", "decoded": ".npy"}
"""The sub-folders of the cache folder, and how the files in them end."""

_DAY_SECONDS = 86_400.0


@dataclass(frozen=True)
class CacheEntry:
    """One file of the cache."""

    kind: Kind
    path: Path
    holds: str
    """What it holds, in words."""
    filled: float | None
    """The fraction of a label cache's answers that are there, from 0 to 1; nothing for other files."""
    size: int
    """Bytes, with the holes of a sparse file."""
    disk_bytes: int
    """Bytes that it takes on the disk."""
    last_used: float
    """Seconds since 1970."""
    fault: str | None = None
    """Why no run can use it."""


def list_entries(*, kind: Kind | None = None, folder: Path | None = None) -> list[CacheEntry]:
    """List the cache's files, the least recently used first.

    Temporary files count too, as leftovers of a run that was killed, once nothing was written to them for a day.

    Args:
        kind: these alone; ``None`` for all.
        folder: instead of ``cache_folder()``.

    Raises:
        MissingInputError: the folder cannot be read.
    """
    root = folder or cache_folder()
    found = []
    for each in [kind] if kind else SUFFIXES:
        try:
            # Our names are ASCII; what else lies here is someone else's.
            paths = [path for path in (root / each).iterdir() if path.suffix == SUFFIXES[each] and path.name.isascii()]
        except FileNotFoundError:
            continue
        except OSError as error:
            raise MissingInputError(
                f"the cache folder {root / each} cannot be read: {error.strerror or error}.",
                "Set COMPRESS_CACHE_DIR to another folder.",
            ) from error
        found += [entry for path in paths if (entry := _entry(each, path)) is not None]
    return sorted(found, key=lambda entry: (entry.last_used, entry.path))


def drop_damage(entry: CacheEntry) -> int:
    """Check every record of a label cache and drop the damaged ones; return how many there were.

    Other files have no records: listing has checked them.

    Raises:
        WriteError: a damaged record cannot be dropped.
    """
    if entry.kind != "labels" or entry.fault is not None or _is_leftover(entry.path):
        return 0
    try:
        return open_label_file(entry.path).drop_damaged()
    except FileNotFoundError:  # pruned meanwhile
        return 0
    except OSError as error:
        raise WriteError(
            f"cannot repair {entry.path}: {error.strerror or error}.", "Remove it with `compress cache prune`."
        ) from error


def choose_removals(
    found: Iterable[CacheEntry], *, now: float, older_than_days: float | None = None, to_size: int | None = None
) -> list[CacheEntry]:
    """Choose what to remove: what is too old, then the least recently used of the rest until the rest is small enough.

    Args:
        found: all entries that count.
        now: seconds since 1970.
        older_than_days: those that were not used for more days than that.
        to_size: bytes on the disk that may stay.

    Returns:
        The least recently used first.
    """
    chosen, stays = [], sorted(found, key=lambda entry: (entry.last_used, entry.path))
    if older_than_days is not None:
        oldest = now - older_than_days * _DAY_SECONDS
        chosen = [entry for entry in stays if entry.last_used < oldest]
        stays = stays[len(chosen) :]
    if to_size is not None:
        size = sum(entry.disk_bytes for entry in stays)
        while size > to_size:
            size -= stays[0].disk_bytes
            chosen.append(stays.pop(0))
    return chosen


def remove_entries(chosen: Sequence[CacheEntry]) -> None:
    """Remove files. A run that has one open keeps it, and its space, until it ends.

    Raises:
        WriteError: the file system refused.
    """
    for entry in chosen:
        try:
            entry.path.unlink(missing_ok=True)
        except OSError as error:
            raise WriteError(
                f"cannot remove {entry.path}: {error.strerror or error}.", "Remove it by hand, or leave it."
            ) from error


def _entry(kind: Kind, path: Path) -> CacheEntry | None:
    """The entry of a path; ``None`` where it is no file of ours, is gone already, or is just being written."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    if _is_leftover(path):
        if time.time() - status.st_mtime < _DAY_SECONDS:
            return None
        holds, filled, fault = "left by a run that was killed", None, None
    else:
        holds, filled, fault = _describe(kind, path)
    return CacheEntry(kind, path, holds, filled, status.st_size, disk_bytes(status), status.st_mtime, fault)


def _is_leftover(path: Path) -> bool:
    """Both kinds are written under a hidden name first."""
    return path.name.startswith(".")


def _describe(kind: Kind, path: Path) -> tuple[str, float | None, str | None]:
    """What a file holds, how full it is, and why it cannot be used."""
    try:
        if kind == "labels":
            return (*_describe_labels(path), None)
        return _describe_pictures(path), None, None
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        return "unusable", None, " ".join(reason.split())[:200]


def _describe_labels(path: Path) -> tuple[str, float]:
    file = open_label_file(path, writable=False)
    key = file.key
    if path.name != key.file_name:
        raise ValueError("its name is not the one that its key gives")
    return f"{key.teacher}'s answers to {key.dataset} at {key.image_size} pixels, {key.precision}", file.filled()


def _describe_pictures(path: Path) -> str:
    n, _, _, side = decoded_shape(path)
    return f"{path.name.partition('-')[0]}: {n:,} pictures of {side} pixels"
