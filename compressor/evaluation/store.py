"""What an evaluation has so far, on disk after every batch: killed at any moment, it goes on where it was.

The state is a folder, and every batch done is one file in it, written at once and never again. So several processes
write side by side without a word to each other, and a kill loses no more than the batch under way.

    key.json              schema, key (a digest of all that the results depend on), columns, samples, image_shape
    CC.SS.BBBBBBBB.npz    column CC, stage SS, the batch that begins with image B of those robust when it started:
        key               uint8 [32]
        positions         int64 [b], among all images
        predictions       int64 [b], what the model says; -1 where its logits are not finite
        broken            bool [b]
        outside           bool [b], what the attack returned lies outside the ball
        adversarial       float32 [m, C, H, W], the broken ones in their order; none for the natural images

An adversarial image takes 4 CHW bytes, 12,288 at CIFAR's size: a column that breaks all of 10,000 images takes 123 MB
at most, and the rest is 20 bytes an image. For pictures of what was found:

    adversarial_images(folder, column) -> positions int64 [m], images float32 [m, C, H, W]
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from compressor.core.errors import MissingInputError, UsageError, WriteError
from compressor.system.files import read_object, write_bytes, write_json
from compressor.system.npz import NpzError, open_npz, read_pieces, stored_array

NO_CLASS = -1
"""The prediction where the model's logits are not finite."""

_SCHEMA = "compress.evaluation-state/2"
_KEY_FILE = "key.json"
_LARGEST_KEY_FILE = 1 << 20
_PERMISSIONS = "Check the permissions of its folder."
_BATCH_FILE = re.compile(r"(\d{2,})\.\d{2,}\.\d{8,}\.npz")
# A batch file or a key, and what a kill leaves of one that was being written.
_NAME = rf"({_BATCH_FILE.pattern}|key\.json)"
_OURS = re.compile(rf"{_NAME}|\.{_NAME}\.\w+\.(npz|json)")


class BatchPosition(NamedTuple):
    """Which batch: the number of its column (0: the natural images) and of its stage, and its first image's number."""

    column: int
    stage: int
    start: int

    @property
    def file_name(self) -> str:
        """Of the batch's file."""
        return f"{self.column:02d}.{self.stage:02d}.{self.start:08d}.npz"


@dataclass(frozen=True, eq=False)
class BatchOutcome:
    """What came of a batch of ``b`` images.

    Attributes:
        predictions: int64 ``[b]``: what the model says of what the attack returned; ``NO_CLASS`` for logits that are
            not finite.
        broken: bool ``[b]``: the model errs on it, and it lies in the ball.
        outside: bool ``[b]``: the attack returned an image outside the ball or [0, 1], which counts for nothing.
        adversarial: float32 ``[m, C, H, W]``: the images that broke, in their order.
    """

    predictions: NDArray[np.int64]
    broken: NDArray[np.bool_]
    outside: NDArray[np.bool_]
    adversarial: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class EvaluationStore:
    """The batches done so far.

    Attributes:
        folder: where they are; ``None`` keeps nothing.
        key: hexadecimal SHA-256 of all that the results depend on.
        image_shape: ``C, H, W``.
    """

    folder: Path | None
    key: str
    image_shape: tuple[int, ...]

    @classmethod
    def enter(
        cls,
        folder: Path | None,
        key: str,
        *,
        columns: Sequence[str],
        samples: int,
        image_shape: tuple[int, ...],
        replace: bool = False,
    ) -> EvaluationStore:
        """Go on with a folder of the same key, or start it anew.

        One evaluation at a time, of however many processes: they all enter before any of them saves.

        Args:
            folder: made where it is absent.
            key: see above.
            columns: the names of the columns, ``clean`` first.
            samples: how many images are evaluated.
            image_shape: ``C, H, W``.
            replace: whether what another evaluation has done there may be removed: it may be hours of work.

        Raises:
            UsageError: a file, or a folder that holds anything that is not ours, or that may not be replaced.
            WriteError: disk full or no permission.
        """
        store = cls(folder, key, image_shape)
        if folder is None:
            return store
        about = {"columns": list(columns), "samples": samples, "image_shape": list(image_shape)}
        document = {"schema": _SCHEMA, "key": key, **about}
        there = _read_key(folder)
        if there == document:
            _remove(path for path in _ours_in(folder) if path.name.startswith("."))  # what a kill left half written
        else:
            refuse_foreign_state(folder)
            done = sum(_BATCH_FILE.fullmatch(path.name) is not None for path in _ours_in(folder))
            if there is not None and done and not replace:
                raise UsageError(
                    f"{folder} holds {done} finished batch(es) of another evaluation: of another model, images, eps, "
                    "suite, seed, batch size or precision.",
                    "Name another folder, or remove this one.",
                )
            _remove(_ours_in(folder))
            write_json(folder / _KEY_FILE, document)
        return store

    def load(self, place: BatchPosition, positions: NDArray[np.int64]) -> BatchOutcome | None:
        """A batch that was done already, if it is of these images; a damaged or foreign file counts for nothing."""
        found = None if self.folder is None else self._read(self.folder / place.file_name)
        if found is None or not np.array_equal(found[0], positions):
            return None
        return found[1]

    def save(self, place: BatchPosition, positions: NDArray[np.int64], outcome: BatchOutcome) -> None:
        """Keep a batch that is done, atomically.

        Raises:
            WriteError: disk full or no permission.
        """
        if self.folder is None:
            return
        arrays = {
            "key": np.frombuffer(bytes.fromhex(self.key), dtype=np.uint8),
            "positions": positions.astype(np.int64),
            "predictions": outcome.predictions,
            "broken": outcome.broken,
            "outside": outcome.outside,
            "adversarial": np.ascontiguousarray(outcome.adversarial),
        }
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        write_bytes(self.folder / place.file_name, buffer.getvalue())

    def batches(self, column: int) -> Iterator[tuple[NDArray[np.int64], BatchOutcome]]:
        """Positions and outcomes of a column's batches, stage after stage; unreadable files are left out."""
        for path in sorted(_ours_in(self.folder)) if self.folder else ():
            name = _BATCH_FILE.fullmatch(path.name)
            if name and int(name[1]) == column and (found := self._read(path)):
                yield found

    def _read(self, path: Path) -> tuple[NDArray[np.int64], BatchOutcome] | None:
        try:
            with path.open("rb") as file, open_npz(file) as archive:
                key = _array(archive, "key", np.uint8, (32,))
                (count,) = stored_array(archive, "positions").shape
                positions = _array(archive, "positions", np.int64, (count,))
                predictions = _array(archive, "predictions", np.int64, (count,))
                broken, outside = (_array(archive, name, np.bool_, (count,)) for name in ("broken", "outside"))
                kept = stored_array(archive, "adversarial").shape[0]
                adversarial = _array(archive, "adversarial", np.float32, (kept, *self.image_shape))
        except (OSError, NpzError, ValueError, IndexError):
            return None
        if key.tobytes().hex() != self.key or kept not in (0, int(broken.sum())):
            return None
        return positions, BatchOutcome(predictions, broken, outside, adversarial)


def adversarial_images(folder: Path, column: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The images that broke the model under one attack, from the state of an evaluation.

    Args:
        folder: the state; see the module.
        column: the attack's name in the suite.

    Returns:
        Positions ``[m]`` among the images evaluated, rising, and the adversarial images ``[m, C, H, W]`` in [0, 1].

    Raises:
        MissingInputError: the folder is no state, or has no such column.
    """
    document = _read_key(folder)
    if document is None or column not in document["columns"]:
        has = f", which has {', '.join(document['columns'])}" if document else ""
        raise MissingInputError(
            f"{folder} is not the state of an evaluation with a column {column}{has}.", "Name the state of one."
        )
    shape = tuple(document["image_shape"])
    positions, images = [np.zeros(0, np.int64)], [np.zeros((0, *shape), np.float32)]
    for where, outcome in EvaluationStore(folder, document["key"], shape).batches(document["columns"].index(column)):
        if len(outcome.adversarial):
            positions.append(where[outcome.broken])
            images.append(outcome.adversarial)
    # An image is broken once; a batch of an interrupted run with other numerics might say so twice.
    unique, first = np.unique(np.concatenate(positions), return_index=True)
    return unique, np.concatenate(images)[first]


def discard_state(folder: Path) -> None:
    """Remove a state that is needed no more; nothing where there is none, and never a file that is not ours.

    Raises:
        WriteError: no permission.
    """
    if not _ours_in(folder):
        return
    _remove(_ours_in(folder))
    try:
        if not any(folder.iterdir()):
            folder.rmdir()
    except OSError as error:
        raise WriteError(f"cannot remove {folder}: {error.strerror}.", _PERMISSIONS) from error


def refuse_foreign_state(folder: Path) -> None:
    """Raise UsageError where a state can't be begun: there is a file, or a folder with anything else in it."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file; the state of an evaluation is a folder.", "Name another folder.")
    strangers = sorted(path.name for path in folder.iterdir() if not _is_ours(path))
    if strangers:
        raise UsageError(
            f"{folder} holds {strangers[0]}, which is no part of an evaluation's state.",
            "Name a folder that is empty or absent.",
        )


def _is_ours(path: Path) -> bool:
    return _OURS.fullmatch(path.name) is not None and not path.is_dir()


def _ours_in(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if _is_ours(path)] if folder.is_dir() else []


def _remove(paths: Iterable[Path]) -> None:
    # The key first: what a kill leaves behind then belongs to nothing.
    for path in sorted(paths, key=lambda path: path.name != _KEY_FILE):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise WriteError(f"cannot remove {path}: {error.strerror}.", _PERMISSIONS) from error


def _read_key(folder: Path) -> dict[str, Any] | None:
    """What the folder belongs to; ``None`` where it does not say, or is damaged."""
    document = read_object(folder / _KEY_FILE, _LARGEST_KEY_FILE)
    if document is None or document.get("schema") != _SCHEMA:
        return None
    shape, columns = document.get("image_shape"), document.get("columns")
    whole = isinstance(shape, list) and len(shape) == 3 and all(type(side) is int and side > 0 for side in shape)
    named = isinstance(columns, list) and all(isinstance(name, str) for name in columns)
    keyed = re.fullmatch(r"[0-9a-f]{64}", str(document.get("key"))) is not None
    return document if whole and named and keyed else None


def _array(archive: zipfile.ZipFile, name: str, dtype: type, shape: tuple[int, ...]) -> NDArray[Any]:
    """An array that is exactly so; its size is believed only where the file itself is as large."""
    found = stored_array(archive, name)
    packed = archive.getinfo(f"{name}.npy").compress_type != zipfile.ZIP_STORED
    if packed or found.dtype != np.dtype(dtype) or found.shape != shape:
        raise NpzError(f"its array `{name}` is {found}")
    if prod(shape) == 0:
        return np.zeros(shape, dtype)
    (whole,) = read_pieces(archive, found, shape[0])
    return whole.copy()
