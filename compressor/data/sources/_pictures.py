"""One picture file becomes one uint8 square, by fixed rules.

- Formats: JPEG, PNG, BMP, GIF (its first frame), TIFF (its first page), WebP, PPM and PGM.
- EXIF orientation is applied; a colour profile is not.
- Grey, palette, CMYK and the like become RGB. Transparent pictures are laid on black.
- 16 bits a channel become 8 by keeping the high byte, as decoders do for colour. Floating point is refused: its range
  is not defined.
- The shorter side is brought to the wanted size (bilinear, antialiased), then the centre square is cut out. A picture
  that has the size already is not resampled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from compressor.core.errors import UnreadableDataError

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
MAX_PIXELS = 1 << 26

# Only these decoders see the bytes: others, such as the one for EPS, start outside programs.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class _RefusedError(Exception):
    """Why a picture that can be decoded is not used; the caller adds its name."""


def read_picture(path: Path, size: int) -> Pixels:
    """Decode a file to uint8 ``[3, size, size]`` by the rules above.

    Raises:
        UnreadableDataError: damaged, of another format, in floating point, or of more than ``MAX_PIXELS`` pixels.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            _check_extent(*image.size, size)
            image.load()
            square = fit(to_rgb(_upright(image)), size)
    except Exception as error:  # decoders raise errors of almost any kind on damaged bytes
        raise UnreadableDataError(
            f"the picture {printable_path(path)} cannot be used: {_reason(error)}.", "Repair or remove this file."
        ) from error
    return to_pixels(square)


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture in RGB, 8 bits a channel: high bytes kept, transparency laid on black."""
    if image.mode == "F":
        raise _RefusedError("its pixels are floating-point numbers, whose range is not defined")
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image.convert("RGBA"))
    return image.convert("RGB")


def fit(image: Image.Image, size: int) -> Image.Image:
    """The centre square of side ``size``, after the shorter side was brought to ``size``."""
    if image.size == (size, size):
        return image
    width, height = _scaled(*image.size, size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return resized.crop((left, top, left + size, top + size))


def to_pixels(image: Image.Image) -> Pixels:
    """The uint8 ``[3, H, W]`` array of an RGB picture."""
    return np.asarray(image, dtype=np.uint8).transpose(2, 0, 1)


def printable_path(path: Path) -> str:
    """A path as text that any terminal and any JSON can hold, whatever bytes are in its name."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _scaled(width: int, height: int, size: int) -> tuple[int, int]:
    short = min(width, height)
    return size * width // short, size * height // short


def _check_extent(width: int, height: int, size: int) -> None:
    if min(width, height) < 1:
        raise _RefusedError("it has no pixels")
    scaled_width, scaled_height = _scaled(width, height, size)
    if max(width * height, scaled_width * scaled_height) > MAX_PIXELS:
        raise _RefusedError(f"at {width} x {height} pixels it is beyond the limit of {MAX_PIXELS:,} pixels")


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG)
    except Exception:  # a damaged EXIF block says nothing of the orientation, and takes nothing from the pixels
        return image
    turn = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _reason(error: Exception) -> str:
    if isinstance(error, _RefusedError):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return "it is damaged, or not of a known format"
    if isinstance(error, Image.DecompressionBombError):
        return f"it is beyond the limit of {MAX_PIXELS:,} pixels"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return "it is damaged or cut short"
