"""What parent and child tell each other: lines of JSON, each an object with its ``kind``.

The parent writes one ``request``. The child writes ``ready``, then any number of ``progress``, ``alive`` and ``step``,
and at last either every ``broken`` image and the ``verdict``, or an ``error``. Nothing is unpickled on either side.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from compressor.core import errors
from compressor.core.errors import CompressError
from compressor.core.types import DatasetSpec, Normalization, Threat
from exporters.model_file.preprocessing import Preprocessing
from exporters.verification.policies import Policies
from exporters.verification.request import Request, VerifierData
from exporters.verification.verdict import (
    Answer,
    Assurance,
    BrokenImage,
    Check,
    PolicyResult,
    PolicyStatus,
    Status,
    Verdict,
)

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")

Message = dict[str, Any]

LONGEST = 1 << 29
"""Bytes of a line: a broken image of the largest side that is allowed takes 340 million."""

_PATHS = ("path", "evidence", "manifest", "public_key", "signature")


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


def request_to_json(request: Request) -> Message:
    """The request as plain values; a dataset that is open already cannot be passed on.

    Raises:
        TypeError: it holds one.
    """
    plain = {field.name: getattr(request, field.name) for field in fields(request)}
    plain |= {name: _text(plain[name]) for name in _PATHS}
    plain["policies"] = asdict(request.policies)
    plain["threat"] = _threat_to_json(request.threat)
    plain["preprocessing"] = asdict(request.preprocessing)
    if request.data is not None:
        if not isinstance(request.data.source, DatasetSpec):
            raise TypeError("an opened dataset cannot be passed to another process: name it by a DatasetSpec.")
        plain["data"] = {
            "source": asdict(request.data.source),
            "data_dir": _text(request.data.data_dir),
            "download": request.data.download,
        }
    return plain


def request_from_json(plain: Message) -> Request:
    """What :func:`request_to_json` was given."""
    values = plain | {name: _path(plain[name]) for name in _PATHS} | {"policies": Policies(**plain["policies"])}
    values["threat"] = _threat_from_json(plain["threat"])
    values["preprocessing"] = _preprocessing_from_json(plain["preprocessing"])
    if (data := plain["data"]) is not None:
        values["data"] = VerifierData(DatasetSpec(**data["source"]), _path(data["data_dir"]), data["download"])
    return Request(**values)


def verdict_to_json(verdict: Verdict) -> Message:
    """Everything but the broken images, which have lines of their own."""
    plain = {field.name: getattr(verdict, field.name) for field in fields(verdict) if field.name != "failures"}
    plain["checks"] = [asdict(check) for check in verdict.checks]
    plain["policy"] = [asdict(result) for result in verdict.policy]
    plain["threat"] = _threat_to_json(verdict.threat)
    return plain


def verdict_from_json(plain: Message, failures: tuple[BrokenImage, ...] = ()) -> Verdict:
    """What :func:`verdict_to_json` was given, with the broken images that came before it.

    Raises:
        MalformedMessageError: it is no verdict.
    """
    try:
        verdict = Verdict(
            **plain
            | {
                "reached": tuple(plain["reached"]),
                "alarms": tuple(plain["alarms"]),
                "checks": tuple(Check(**check) for check in plain["checks"]),
                "policy": tuple(PolicyResult(**result) for result in plain["policy"]),
                "failures": failures,
                "threat": _threat_from_json(plain["threat"]),
            }
        )
        sound = _is_sound(verdict)
    except (KeyError, TypeError, ValueError, CompressError) as error:
        raise MalformedMessageError("a verdict lacks something") from error
    if not sound:
        raise MalformedMessageError("a verdict holds what none can hold")
    return verdict


def _is_sound(verdict: Verdict) -> bool:
    """Whether the answers are among those there are, and the counts can be counts."""
    measured = [count for count in (verdict.clean, verdict.robust) if count is not None]
    counts = (verdict.samples, verdict.broken, verdict.attacked, *measured)
    return (
        verdict.answer in get_args(Answer)
        and bool(verdict.reached)
        and {*verdict.reached} <= {*get_args(Assurance)}
        and {check.status for check in verdict.checks} <= {*get_args(Status)}
        and {result.status for result in verdict.policy} <= {*get_args(PolicyStatus)}
        and all(type(count) is int and count >= 0 for count in counts)
        and isinstance(verdict.attacks, dict)
    )


def broken_to_json(broken: BrokenImage) -> Message:
    """A broken image, its pixels in base64."""
    return {
        "index": broken.index,
        "label": broken.label,
        "predicted": broken.predicted,
        "attack": broken.attack,
        "shape": list(broken.natural.shape),
        "natural": base64.b64encode(broken.natural.tobytes()).decode("ascii"),
        "adversarial": base64.b64encode(broken.adversarial.tobytes()).decode("ascii"),
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


def _threat_to_json(threat: Threat | None) -> Message | None:
    return None if threat is None else asdict(threat)


def _threat_from_json(plain: Message | None) -> Threat | None:
    return None if plain is None else Threat(**plain)


def _preprocessing_from_json(plain: Message) -> Preprocessing:
    rows = plain["normalization"]
    normalization = None if rows is None else Normalization(tuple(rows["mean"]), tuple(rows["std"]))
    return Preprocessing(normalization, plain["image_size"])


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
