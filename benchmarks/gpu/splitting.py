"""A file in pieces below a size limit, with digests, and the whole again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

MIB = 1 << 20
PIECE_LIMIT = 16 * MIB


def split(source: Path, folder: Path, *, limit: int = PIECE_LIMIT) -> list[Path]:
    """Copy ``source`` into pieces ``NAME.00``, ``NAME.01``, ... in ``folder``.

    Args:
        source: a file that is not empty.
        folder: exists.
        limit: bytes that a piece may have.

    Returns:
        The pieces in their order: joined, they are the file.
    """
    content = source.read_bytes()
    pieces = []
    for number, start in enumerate(range(0, len(content), limit)):
        piece = folder / f"{source.name}.{number:02d}"
        piece.write_bytes(content[start : start + limit])
        pieces.append(piece)
    return pieces


def join(pieces: Sequence[Path], target: Path, sha256: str) -> None:
    """Write the pieces, in this order, to ``target``.

    Raises:
        ValueError: together they do not have this digest; nothing is written.
    """
    content = b"".join(piece.read_bytes() for piece in pieces)
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(
            f"The pieces of {target.name} have the digest {found}, not {sha256}: one is missing or damaged."
        )
    target.write_bytes(content)


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def join_command(name: str, sha256: str) -> str:
    """A shell command that joins the pieces of ``name`` and checks the result."""
    return f"cat {name}.[0-9][0-9] > {name} && echo '{sha256}  {name}' | sha256sum --check"
