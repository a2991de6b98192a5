"""The images that prove a claim: what was attacked, what broke it, and what did not break."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from compressor.core.errors import UnreadableEvidenceError
from exporters.claim.companions import read_companion

MAX_BYTES = 512 << 20
"""The largest evidence file that is read at all."""

MAX_SAMPLES = 10_000
"""The most images that evidence may hold."""

_LENGTHS_DIFFER = "the arrays of the evidence do not belong together: their lengths differ."
_FIRST_DATE = (1980, 1, 1, 0, 0, 0)

Array = np.ndarray[Any, np.dtype[Any]]
Floats = np.ndarray[Any, np.dtype[np.float32]]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Integers = np.ndarray[Any, np.dtype[np.int64]]
Bits = np.ndarray[Any, np.dtype[np.bool_]]


class _Arrays:
    """Arrays of one file, a row for each image: the fields of a dataclass."""

    labels: Integers

    def __len__(self) -> int:
        return len(self.labels)

    def to_bytes(self) -> bytes:
        """The ``.npz`` file: equal evidence gives equal bytes."""
        return _pack(vars(self))


@dataclass(frozen=True, eq=False)
class Evidence(_Arrays):
    """Images with their outcomes, and an adversarial image for each that was correct and is not robust.

    Attributes:
        images: uint8 ``[n, C, H, W]``.
        labels: int64 ``[n]``.
        clean: bool ``[n]``, classified correctly.
        robust: bool ``[n]``, and no attack of the suite broke it.
        adversarial_u8: uint8 ``[a, C, H, W]``, where the rounded image still breaks it.
        adversarial_u8_index: int64 ``[a]``, rising: the images that these belong to.
        adversarial_f32: float32 ``[b, C, H, W]``, where only the unrounded one does.
        adversarial_f32_index: int64 ``[b]``, rising.
    """

    images: Bytes
    labels: Integers
    clean: Bits
    robust: Bits
    adversarial_u8: Bytes
    adversarial_u8_index: Integers
    adversarial_f32: Floats
    adversarial_f32_index: Integers

    def natural(self) -> Floats:
        """The images as the model takes them: float32 ``[n, C, H, W]``, ``fl(u8 / 255)``."""
        return to_float_array(self.images)

    def adversarial(self) -> tuple[Floats, Integers]:
        """All adversarial images as float32 ``[a + b, C, H, W]``, and the images that they belong to, ``[a + b]``."""
        index = np.concatenate([self.adversarial_u8_index, self.adversarial_f32_index])
        return np.concatenate([to_float_array(self.adversarial_u8), self.adversarial_f32]), index


@dataclass(frozen=True, eq=False)
class DigestEvidence(_Arrays):
    """Outcomes without images, for pictures that may not be passed on: the verifier must have them.

    There are no adversarial images either, since each is all but the picture that it was made of. What they would prove
    is that the broken images are broken, which nobody has a reason to claim falsely.

    Attributes:
        image_sha256: uint8 ``[n, 32]``: the digest of each image, see :func:`image_digests`.
        labels: int64 ``[n]``.
        clean: bool ``[n]``, classified correctly.
        robust: bool ``[n]``, and no attack of the suite broke it.
    """

    image_sha256: Bytes
    labels: Integers
    clean: Bits
    robust: Bits

    def with_images(self, images: Bytes) -> Evidence:
        """The evidence that this stands for, but for the adversarial images, of which it has none.

        Args:
            images: uint8 ``[n, C, H, W]``, whose digests are these.
        """
        nothing = np.zeros(0, dtype=np.int64)
        return Evidence(
            images=images,
            labels=self.labels,
            clean=self.clean,
            robust=self.robust,
            adversarial_u8=images[:0],
            adversarial_u8_index=nothing,
            adversarial_f32=to_float_array(images[:0]),
            adversarial_f32_index=nothing,
        )


def without_images(evidence: Evidence) -> DigestEvidence:
    """The same outcomes, with digests in the place of pictures."""
    return DigestEvidence(image_digests(evidence.images), evidence.labels, evidence.clean, evidence.robust)


def image_digests(images: Bytes) -> Bytes:
    """SHA-256 of each image's bytes in the order ``[C, H, W]``: uint8 ``[n, 32]`` of uint8 ``[n, C, H, W]``."""
    rows = [np.frombuffer(sha256(np.ascontiguousarray(image).data).digest(), dtype=np.uint8) for image in images]
    return np.stack(rows) if rows else np.zeros((0, 32), dtype=np.uint8)


# Name to type and number of dimensions. The order is that of the file.
_LAYOUT: dict[str, tuple[str, int]] = {
    "images": ("|u1", 4),
    "labels": ("<i8", 1),
    "clean": ("|b1", 1),
    "robust": ("|b1", 1),
    "adversarial_u8": ("|u1", 4),
    "adversarial_u8_index": ("<i8", 1),
    "adversarial_f32": ("<f4", 4),
    "adversarial_f32_index": ("<i8", 1),
}
_DIGEST_LAYOUT: dict[str, tuple[str, int]] = {
    "image_sha256": ("|u1", 2),
    "labels": ("<i8", 1),
    "clean": ("|b1", 1),
    "robust": ("|b1", 1),
}


def evidence_path(model: Path) -> Path:
    """Where the evidence of a model file lies: ``NAME.onnx`` has ``NAME.evidence.npz`` beside it."""
    return model.with_suffix(".evidence.npz")


def read_evidence_bytes(path: Path) -> bytes:
    """The file's bytes, its size checked first.

    Raises:
        MissingInputError: there is no such file.
        UnreadableEvidenceError: it is too large, or the system refuses.
    """
    hint = "Name it with --evidence-file."
    return read_companion(path, "evidence", MAX_BYTES, UnreadableEvidenceError, hint)


def parse_evidence(data: bytes) -> Evidence | DigestEvidence:
    """Read evidence of unknown origin: the arrays that are expected, of their types, and not a byte more.

    Raises:
        UnreadableEvidenceError: anything else, a compressed archive or contradicting lengths included.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            layout = next((kind for kind in (_LAYOUT, _DIGEST_LAYOUT) if names == [f"{name}.npy" for name in kind]), {})
            if not layout:
                raise UnreadableEvidenceError("the evidence does not hold the arrays that this program knows.")
            if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size > len(data) for entry in entries):
                raise UnreadableEvidenceError("the evidence is packed in another way than this program writes.")
            arrays = {name: _parse_npy(archive.read(f"{name}.npy"), *kind) for name, kind in layout.items()}
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise UnreadableEvidenceError("the evidence is not a readable .npz file.") from error
    evidence = Evidence(**arrays) if layout is _LAYOUT else DigestEvidence(**arrays)
    _check_lengths(evidence)
    # Evidence has one spelling. A second one could show this program and another reader different things.
    if evidence.to_bytes() != data:
        raise UnreadableEvidenceError("the evidence holds bytes that belong to none of its arrays.")
    return evidence


def find_contradiction(evidence: Evidence | DigestEvidence, classes: int) -> str | None:
    """Why the outcomes cannot all be true, in words, or None where they can."""
    if bool((evidence.labels < 0).any() or (evidence.labels >= classes).any()):
        return "a label is none of the model's classes"
    if bool((evidence.robust & ~evidence.clean).any()):
        return "an image is called robust and not classified correctly"
    if isinstance(evidence, DigestEvidence):
        return None
    correct_but_broken = np.flatnonzero(evidence.clean & ~evidence.robust)
    _, index = evidence.adversarial()
    if not np.array_equal(np.sort(index), correct_but_broken):
        return "there is not one adversarial image for each image that was correct and is not robust"
    return None


def to_float_array(images: Bytes) -> Floats:
    """``fl(u8 / 255)``: float32 images in [0, 1]."""
    return np.asarray(images, dtype=np.float32) / np.float32(255)


def _pack(arrays: Mapping[str, Array]) -> bytes:
    """An archive of arrays in their order.

    Stored, not deflated: pictures hardly shrink, deflating differs between zlib versions, and a file that stores cannot
    unpack to more than its own size.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy", _FIRST_DATE)
            info.create_system, info.external_attr = 3, 0o644 << 16
            archive.writestr(info, _npy_bytes(array))
    return buffer.getvalue()


def _npy_bytes(array: Array) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def _parse_npy(data: bytes, dtype: str, dimensions: int) -> Any:
    """Read one array after comparing what its header promises with the bytes that are there."""
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("another version of the array format")
    shape, fortran, found = np.lib.format.read_array_header_1_0(stream, max_header_size=1000)
    if fortran or found.str != dtype or len(shape) != dimensions or any(side < 0 for side in shape):
        raise ValueError("another type or shape than expected")
    size = found.itemsize
    for side in shape:  # Python's integers do not overflow, NumPy's product would
        size *= int(side)
    if size != len(data) - stream.tell():
        raise ValueError("another size than the header promises")
    # A copy, because torch wants memory that may be written to.
    array = np.frombuffer(data, dtype=found, offset=stream.tell()).reshape(shape).copy()
    if dtype == "|b1" and bool((array.view(np.uint8) > 1).any()):
        raise ValueError("a truth value that is neither 0 nor 1")
    return array


def _check_lengths(evidence: Evidence | DigestEvidence) -> None:
    n = len(evidence.labels)
    images = evidence.image_sha256 if isinstance(evidence, DigestEvidence) else evidence.images
    if n > MAX_SAMPLES:
        raise UnreadableEvidenceError(f"the evidence holds {n} images, and at most {MAX_SAMPLES} are read.")
    if {len(images), len(evidence.clean), len(evidence.robust)} != {n}:
        raise UnreadableEvidenceError(_LENGTHS_DIFFER)
    if isinstance(evidence, DigestEvidence):
        if images.shape[1] != sha256().digest_size:
            raise UnreadableEvidenceError("the evidence holds digests of another length than SHA-256 has.")
        return
    pairs = ("adversarial_u8", "adversarial_f32")
    matched = all(len(getattr(evidence, name)) == len(getattr(evidence, f"{name}_index")) for name in pairs)
    shapes = {getattr(evidence, name).shape[1:] for name in ("images", *pairs)}
    if not matched or len(shapes) != 1:
        raise UnreadableEvidenceError(_LENGTHS_DIFFER)
    for name in pairs:
        index = getattr(evidence, f"{name}_index")
        if bool((index < 0).any() or (index >= n).any() or (np.diff(index) <= 0).any()):
            raise UnreadableEvidenceError("the evidence points at images that it does not hold.")
