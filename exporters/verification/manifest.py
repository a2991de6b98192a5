"""A dataset's split as digests: they identify its images without holding one of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compressor.core.contracts import Dataset
from compressor.core.errors import MissingInputError, UnreadableManifestError
from compressor.data.datasets import draw, split_digest
from compressor.system.files import canonical_json
from exporters.claim.evidence import Bytes, Integers, image_digests
from exporters.verification.verifier_data import SPLIT

SCHEMA = "compress.manifest/1"
MAX_BYTES = 256 << 20
MAX_IMAGES = 2_000_000

_HEADER = {"schema", "name", "split", "digest", "class_names", "shape"}


@dataclass(frozen=True, eq=False)
class Manifest:
    """What is known of a split.

    Attributes:
        name: of the dataset.
        digest: of the split, see :func:`compressor.data.datasets.digest`; it fixes the draw.
        class_names: in the order of the labels.
        shape: ``(C, H, W)`` of its images.
        images: SHA-256 of each image's bytes, as bytes: ``[N, 32]``.
        labels: int64 ``[N]``.
    """

    name: str
    digest: str
    class_names: tuple[str, ...]
    shape: tuple[int, int, int]
    images: Bytes
    labels: Integers

    def drawn(self, n: int) -> tuple[Bytes, Integers]:
        """The digests ``[n, 32]`` and labels ``[n]`` of the evidence draw, or of all where there are fewer."""
        index = draw(self.digest, total=len(self.labels), n=min(n, len(self.labels)))
        return self.images[index], self.labels[index]

    def to_text(self) -> str:
        """A line of canonical JSON, then one line ``SHA-256 label`` for each image: equal splits give equal text."""
        header = {
            "schema": SCHEMA,
            "name": self.name,
            "split": SPLIT,
            "digest": self.digest,
            "class_names": list(self.class_names),
            "shape": [len(self.labels), *self.shape],
        }
        lines = [canonical_json(header)]
        lines += [f"{bytes(row).hex()} {label}" for row, label in zip(self.images, self.labels.tolist(), strict=True)]
        return "\n".join(lines) + "\n"


def make_manifest(dataset: Dataset) -> Manifest:
    """The manifest of a dataset's test split, at the dataset's image size."""
    split = dataset.load(SPLIT)
    channels, height, width = split.images.shape[1:]
    return Manifest(
        dataset.name,
        split_digest(dataset, SPLIT),
        tuple(dataset.class_names),
        (channels, height, width),
        image_digests(split.images),
        np.asarray(split.labels, dtype=np.int64),
    )


def read_manifest(path: Path) -> Manifest:
    """Read a manifest that the caller trusts; its text may still be damaged.

    Raises:
        MissingInputError: there is no such file.
        UnreadableManifestError: it is no manifest, or too large.
    """
    if not path.is_file():
        raise MissingInputError(f"there is no manifest {path}.", "Write one with `compress manifest`.")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise MissingInputError(f"cannot read {path}: {error.strerror or error}.") from error
    if len(data) > MAX_BYTES:
        raise UnreadableManifestError(f"the manifest {path} is larger than {MAX_BYTES} bytes.")
    try:
        return _parse(data)
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise UnreadableManifestError(
            f"{path} is not a manifest, or it is damaged.", "Write it again with `compress manifest`."
        ) from error


def _parse(data: bytes) -> Manifest:
    first, *lines = data.decode().split("\n")
    header: Any = json.loads(first)
    if not isinstance(header, dict) or set(header) != _HEADER or header["schema"] != SCHEMA or header["split"] != SPLIT:
        raise ValueError("another header")
    total, channels, height, width = (int(size) for size in header["shape"])
    if lines[-1:] != [""] or len(lines) - 1 != total or not 0 < total <= MAX_IMAGES:
        raise ValueError("another number of lines than the header says")
    rows = [line.split(" ") for line in lines[:-1]]
    images = np.frombuffer(bytes.fromhex("".join(digest for digest, _ in rows)), dtype=np.uint8)
    labels = np.array([int(label) for _, label in rows], dtype=np.int64)
    names = tuple(str(name) for name in header["class_names"])
    manifest = Manifest(
        str(header["name"]), str(header["digest"]), names, (channels, height, width), images.reshape(-1, 32), labels
    )
    # One spelling: a line of another length would have moved all digests behind it.
    if manifest.to_text().encode() != data or not ((labels >= 0) & (labels < len(names))).all():
        raise ValueError("not what this program writes")
    return manifest
