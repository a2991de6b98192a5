"""The broken images as PNG files: they show what refuted a claim."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from compressor.core.errors import UsageError
from compressor.system.files import write_bytes
from exporters.claim.evidence import Bytes
from exporters.verification.verdict import Verdict


def write_failures(verdict: Verdict, folder: Path) -> tuple[Path, ...]:
    """Write each broken image as a pair of PNG files, natural and adversarial.

    Names say position, classes and attack: ``0012-natural-is-3.png`` and ``0012-broken-as-5-by-pgd-margin.png``. The
    adversarial picture is rounded to bytes, which may undo what broke it: the evidence of record is the seed.

    Args:
        verdict: whose failures are written; without any, nothing is.
        folder: made where it is absent.

    Returns:
        The files, in the order of the images.

    Raises:
        UsageError: ``folder`` is a file. WriteError: the file system refused.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is not a folder.", "Name a folder with --failures.")
    written = []
    for failure in verdict.failures:
        attack = "".join(letter if letter.isalnum() else "-" for letter in failure.attack.lower())
        adversarial = np.rint(failure.adversarial * 255).astype(np.uint8)
        pair = {
            f"{failure.index:04d}-natural-is-{failure.label}.png": failure.natural,
            f"{failure.index:04d}-broken-as-{failure.predicted}-by-{attack}.png": adversarial,
        }
        for name, picture in pair.items():
            write_bytes(folder / name, _png(picture))
            written.append(folder / name)
    return tuple(written)


def _png(picture: Bytes) -> bytes:
    """A PNG file of ``[C, H, W]``, grey or RGB."""
    pixels = picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG")
    return buffer.getvalue()
