"""The files beside a model: its evidence and its signature."""

from __future__ import annotations

from pathlib import Path

from compressor.core.errors import CompressError, MissingInputError
from compressor.system.files import read_regular


def read_companion(path: Path, what: str, most: int, unreadable: type[CompressError], hint: str) -> bytes:
    """The bytes of a file that anyone may have written, its size checked first.

    Args:
        path: of the file.
        what: its kind, for messages.
        most: how many bytes it may have.
        unreadable: what is raised where it cannot be read.
        hint: the way out where it is missing.

    Raises:
        MissingInputError: there is none.
        CompressError: of the kind ``unreadable``: it is too large, or the system refuses.
    """
    if not path.is_file():
        raise MissingInputError(f"there is no {what} file {path}.", hint)
    try:
        data = read_regular(path, most)
    except OSError as error:
        raise unreadable(f"cannot read {path}: {error.strerror or error}.") from error
    if data is None:
        raise unreadable(f"the {what} file is larger than {most} bytes, and no more are read.")
    return data
