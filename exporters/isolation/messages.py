"""What parent and child tell each other: lines of JSON, each an object with its ``kind``.

The parent writes one ``request``. The child writes ``ready``, then any number of ``progress``, ``alive`` and ``step``,
and at last either every ``broken`` image and the ``verdict``, or an ``error``. Nothing is unpickled on either side.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from compressor.core import errors
from compressor.core.errors import CompressError
from compressor.core.types import DatasetSpec
from exporters.isolation.plain_values import from_plain, to_plain
from exporters.verification.given_images import GivenImages
from exporters.verification.request import Request
from exporters.verification.verdict import BrokenImage, Verdict

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")

Message = dict[str, Any]

LONGEST = 1 << 29
"""Bytes of a line: a broken image of the largest side that is allowed takes 340 million."""

_IMAGES, _LABELS = "images.npy", "labels.npy"


class MalformedMessageError(Exception):
    """The child sent something else than its part of the conversation."""


def encode(kind: str, body: Mapping[str, Any]) -> bytes:
    """One line."""
    return json.dumps({"kind": kind, **body}).encode("ascii") + b"\n"


def decode(line: bytes) -> Message:
    """The object of one line.

    Raises:
        MalformedMessageError: it is none.
    """
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise MalformedMessageError("a line is not JSON") from error
    if not isinstance(message, dict) or not isinstance(message.get("kind"), str):
        raise MalformedMessageError("a line is no message")
    return message


def require_field(message: Message, name: str, kind: type[T]) -> T:
    """A part of a message.

    Raises:
        MalformedMessageError: it is not there, or is of another type.
    """
    value = message.get(name)
    if not isinstance(value, kind):
        raise MalformedMessageError(f"a message lacks its {name}")
    return value


@contextmanager
def request_as_json(request: Request) -> Iterator[Message]:
    """The request as plain values. Images in memory lie in a temporary folder meanwhile: a message names the folder."""
    plain: Message = {**to_plain(request, leave_out=("data",)), "data": None}
    if request.data is None or isinstance(request.data, DatasetSpec):
        yield {**plain, "data": to_plain(request.data)}
        return
    given = request.data if isinstance(request.data, GivenImages) else GivenImages.of_dataset(request.data)
    with TemporaryDirectory(prefix="compress-verify-") as folder:
        import numpy as np

        np.save(Path(folder) / _IMAGES, given.images, allow_pickle=False)
        np.save(Path(folder) / _LABELS, given.labels, allow_pickle=False)
        named = to_plain(given, leave_out=("images", "labels"))
        yield {**plain, "data": {"folder": folder, **named}}


def request_from_json(plain: Message) -> Request:
    """What :func:`request_as_json` was given."""
    data: DatasetSpec | GivenImages | None = None
    if (named := plain["data"]) is not None:
        data = _images_from_json(named) if "folder" in named else from_plain(DatasetSpec, named)
    return from_plain(Request, {name: part for name, part in plain.items() if name != "data"}, data=data)


def _images_from_json(plain: Message) -> GivenImages:
    import numpy as np

    folder, names = Path(plain["folder"]), plain["class_names"]
    images = np.load(folder / _IMAGES, mmap_mode="r", allow_pickle=False)
    labels = np.load(folder / _LABELS, allow_pickle=False)
    return GivenImages(images, labels, plain["name"], None if names is None else tuple(names))


def verdict_to_json(verdict: Verdict) -> Message:
    """Everything but the broken images, which have lines of their own."""
    plain: Message = to_plain(verdict, leave_out=("failures",))
    return plain


def verdict_from_json(plain: Message, failures: tuple[BrokenImage, ...] = ()) -> Verdict:
    """What :func:`verdict_to_json` was given, with the broken images that came before it.

    Raises:
        MalformedMessageError: it is no verdict.
    """
    try:
        verdict = from_plain(Verdict, plain, failures=failures)
    except (TypeError, ValueError, CompressError) as error:
        raise MalformedMessageError("a verdict lacks something, or holds what none can hold") from error
    counts = [verdict.samples, verdict.broken, verdict.attacked, verdict.clean or 0, verdict.robust or 0]
    if not verdict.reached or min(counts) < 0:
        raise MalformedMessageError("a verdict holds what none can hold")
    return verdict


def broken_to_json(broken: BrokenImage) -> Message:
    """A broken image, its pixels in base64."""
    pixels = {name: getattr(broken, name) for name in ("natural", "adversarial")}
    return {
        **to_plain(broken, leave_out=tuple(pixels)),
        "shape": list(broken.natural.shape),
        **{name: base64.b64encode(array.tobytes()).decode("ascii") for name, array in pixels.items()},
    }


def broken_from_json(plain: Message) -> BrokenImage:
    """What :func:`broken_to_json` was given.

    Raises:
        MalformedMessageError: it is no such image.
    """
    import numpy as np

    try:
        shape = tuple(int(side) for side in plain["shape"])
        return BrokenImage(
            index=int(plain["index"]),
            label=int(plain["label"]),
            predicted=int(plain["predicted"]),
            natural=_pixels(plain["natural"], np.dtype(np.uint8), shape),
            adversarial=_pixels(plain["adversarial"], np.dtype(np.float32), shape),
            attack=str(plain["attack"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedMessageError("a broken image is damaged") from error


def error_to_json(error: CompressError) -> Message:
    """An error of the caller's, by the name of the nearest class that every part of the program knows."""
    kind = next(kind for kind in type(error).__mro__ if vars(errors).get(kind.__name__) is kind)
    return {"name": kind.__name__, "message": error.message, "hint": error.hint}


def error_from_json(plain: Message) -> CompressError:
    """What :func:`error_to_json` was given.

    Raises:
        MalformedMessageError: there is no such error.
    """
    kind = vars(errors).get(str(plain.get("name")))
    if not (isinstance(kind, type) and issubclass(kind, CompressError)):
        raise MalformedMessageError("an error of an unknown kind")
    return kind(str(plain.get("message")), str(plain.get("hint")))


def _pixels(text: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
    import numpy as np

    data = base64.b64decode(text, validate=True)
    if len(shape) != 3 or min(shape) < 1 or len(data) != prod(shape) * dtype.itemsize:
        raise ValueError("another size than its shape says")
    return np.frombuffer(data, dtype).reshape(shape)
