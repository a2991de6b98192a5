"""Writing so that a reader sees the whole file or none of it, and digests that depend on content alone."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compressor.core.errors import UsageError, WriteError

AnyPath = str | os.PathLike[str]
"""Text, a path, or an object that has one, such as a run or an exported artifact."""

_CHUNK_BYTES = 1 << 20


def as_path(given: AnyPath | None) -> Path | None:
    """The path of what was given.

    Raises:
        UsageError: it has none.
    """
    if given is None:
        return None
    try:
        return Path(given)
    except TypeError:
        raise UsageError(f"{given!r:.60} is not a path.", "Give text, a path, or an object with a path.") from None


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it there on success, remove it on failure.

    Raises:
        WriteError: the file system refused: disk full, no permission, read-only.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:80]}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        # mkstemp makes files private; give the file the permissions an ordinary open() would have.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        raise WriteError(
            f"cannot write {path}: {error.strerror or error}.", "Free some space or choose another folder."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically, as UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` to ``path`` atomically, as JSON that people can read and diff."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_regular(path: Path, most: int) -> bytes | None:
    """The bytes of a file that anyone may have put there; None where they are more than ``most``.

    A pipe or a device would be read for ever, or not answer at all: none is opened, nor waited for if it takes the
    file's place at the last moment.

    Raises:
        OSError: the system refuses, it is no regular file, or it changed while it was read.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(_regular(path, path.stat()), flags)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a number
        size = os.fstat(descriptor).st_size
        _regular(path, os.fstat(descriptor))
        if size > most:
            return None
        data = file.read(size + 1)
    if len(data) != size:
        raise OSError(errno.EIO, "it changed while it was read", str(path))
    return data


def read_object(path: Path, most: int) -> dict[str, Any] | None:
    """The object in a JSON file that anyone may have put there; None where there is none of at most ``most`` bytes."""
    try:
        data = read_regular(path, most)
        document = None if data is None else json.loads(data)
    except (OSError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of a JSON text, as the ``object_pairs_hook`` of a reader.

    Raises:
        ValueError: a key occurs twice.
    """
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key occurs twice")
    return value


def _regular(path: Path, found: os.stat_result) -> Path:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return path


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text, whatever order they were built in."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def sha256_bytes(data: bytes) -> str:
    """Hexadecimal SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK_BYTES):
            digest.update(piece)
    return digest.hexdigest()
