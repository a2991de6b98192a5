"""The bits an evaluation has so far, on disk after every batch: a killed evaluation goes on where it stopped.

Of several processes each writes a file of its own beside the first one's, and reads them all when it starts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.errors import WriteError
from compressor.files import write_json

_SCHEMA = "compress.evaluation-state/1"
_LETTERS = np.frombuffer(b"?01", dtype=np.uint8)

UNKNOWN, WRONG, RIGHT = -1, 0, 1


@dataclass(frozen=True, eq=False)
class EvaluationState:
    """One int8 array ``[N]`` of ``UNKNOWN``, ``WRONG`` or ``RIGHT`` for each column, filled in as work is done.

    Attributes:
        path: where the first process keeps it; ``None`` keeps it in memory only.
        key: a digest of everything that the bits depend on.
        bits: the arrays by column name.
        rank: the number of the process that writes.
    """

    path: Path | None
    key: str
    bits: Mapping[str, NDArray[np.int8]]
    rank: int = 0

    @classmethod
    def open(
        cls, path: Path | None, key: str, columns: Sequence[str], samples: int, *, rank: int = 0
    ) -> EvaluationState:
        """Read what every process has written; a missing, damaged or foreign file is ignored."""
        bits = {column: np.full(samples, UNKNOWN, dtype=np.int8) for column in columns}
        for file in () if path is None else (path, *_files_of_others(path)):
            for column, found in (_read(file, key, columns, samples) or {}).items():
                np.maximum(bits[column], found, out=bits[column])
        return cls(path, key, bits, rank)

    def save(self) -> None:
        """Write it atomically, to this process's own file.

        Raises:
            WriteError: disk full or no permission.
        """
        if self.path is not None:
            own = self.path if self.rank == 0 else self.path.with_name(f"{self.path.name}.rank{self.rank}")
            bits = {column: _LETTERS[bits + 1].tobytes().decode() for column, bits in self.bits.items()}
            write_json(own, {"schema": _SCHEMA, "key": self.key, "bits": bits})

    def absorb(self) -> None:
        """Let the first process's file be the only one: these bits hold what all files do.

        Raises:
            WriteError: disk full or no permission.
        """
        if self.path is None or self.rank != 0 or not (others := _files_of_others(self.path)):
            return
        self.save()
        for file in others:
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                hint = "Check the permissions of its folder."
                raise WriteError(f"cannot remove {file}: {error.strerror}.", hint) from error


def _files_of_others(path: Path) -> list[Path]:
    """What processes other than the first have written beside ``path``, and not been absorbed since."""
    pattern = re.compile(re.escape(path.name) + r"\.rank\d{1,6}")
    try:
        return sorted(file for file in path.parent.iterdir() if pattern.fullmatch(file.name))
    except OSError:
        return []


def _read(path: Path, key: str, columns: Sequence[str], samples: int) -> dict[str, NDArray[np.int8]] | None:
    limit = 65_536 + 2 * samples * len(columns)
    try:
        if path.stat().st_size > limit:
            return None
        return _decode(json.loads(path.read_bytes()), key, columns, samples)
    except (OSError, ValueError, RecursionError):
        return None


def _decode(state: Any, key: str, columns: Sequence[str], samples: int) -> dict[str, NDArray[np.int8]] | None:
    if not isinstance(state, dict) or state.get("schema") != _SCHEMA or state.get("key") != key:
        return None
    stored = state.get("bits")
    if not isinstance(stored, dict) or list(stored) != list(columns):
        return None
    whole = all(isinstance(text, str) and len(text) == samples and set(text) <= set("?01") for text in stored.values())
    if not whole:
        return None
    return {
        column: np.array(["?01".index(letter) - 1 for letter in text], dtype=np.int8) for column, text in stored.items()
    }
