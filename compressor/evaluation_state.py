"""The bits an evaluation has so far, on disk after every batch: a killed evaluation goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.files import write_json

_SCHEMA = "compress.evaluation-state/1"
_LETTERS = np.frombuffer(b"?01", dtype=np.uint8)

UNKNOWN, WRONG, RIGHT = -1, 0, 1


@dataclass(frozen=True, eq=False)
class EvaluationState:
    """One int8 array ``[N]`` of ``UNKNOWN``, ``WRONG`` or ``RIGHT`` for each column, filled in as work is done.

    Attributes:
        path: where it is kept; ``None`` keeps it in memory only.
        key: a digest of everything that the bits depend on.
        bits: the arrays by column name.
    """

    path: Path | None
    key: str
    bits: Mapping[str, NDArray[np.int8]]

    @classmethod
    def open(cls, path: Path | None, key: str, columns: Sequence[str], samples: int) -> EvaluationState:
        """Read the state at ``path``; a missing, damaged or foreign one is ignored, and nothing is known yet."""
        bits = None if path is None else _read(path, key, columns, samples)
        return cls(path, key, bits or {column: np.full(samples, UNKNOWN, dtype=np.int8) for column in columns})

    def save(self) -> None:
        """Write it atomically.

        Raises:
            WriteError: disk full or no permission.
        """
        if self.path is not None:
            bits = {column: _LETTERS[bits + 1].tobytes().decode() for column, bits in self.bits.items()}
            write_json(self.path, {"schema": _SCHEMA, "key": self.key, "bits": bits})


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
