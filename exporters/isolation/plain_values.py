"""Frozen dataclasses as plain JSON values and back: what is read has the types that the fields say, or is refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")


def to_plain(value: Any, leave_out: Collection[str] = ()) -> Any:
    """``value`` as JSON has it: dataclasses and mappings as objects, tuples as arrays, paths as text.

    Args:
        value: a dataclass of such values.
        leave_out: fields of ``value`` itself that are not wanted.
    """
    if is_dataclass(value):
        named = ((one.name, getattr(value, one.name)) for one in fields(value))
        return {name: to_plain(part) for name, part in named if name not in leave_out}
    if isinstance(value, Mapping):
        return {name: to_plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def from_plain(kind: type[T], plain: Any, **left_out: Any) -> T:
    """What :func:`to_plain` was given.

    Args:
        kind: the dataclass.
        plain: what was read; it may be anything.
        left_out: the fields that were left out, as they are.

    Raises:
        TypeError, ValueError, CompressError: a field is missing, unknown or of another type, or the dataclass itself
            refuses it.
    """
    hints = _hints(cast(Any, kind))
    if not isinstance(plain, dict) or plain.keys() | left_out.keys() != hints.keys():
        raise ValueError(f"{kind.__name__} has other fields")
    return kind(**{name: _read(hints[name], part) for name, part in plain.items()} | left_out)


@cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {one.name: hints[one.name] for one in fields(kind)}


def _read(hint: Any, plain: Any) -> Any:
    """``plain`` as a value of the type ``hint``."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _read_optional(inner, plain)
    if is_dataclass(hint):
        return from_plain(cast(Any, hint), plain)
    if origin is tuple and isinstance(plain, list) and inner[1:] == (...,):
        return tuple(_read(inner[0], part) for part in plain)
    if origin is dict and isinstance(plain, dict):
        return {_read(inner[0], name): _read(inner[1], part) for name, part in plain.items()}
    return _read_single(hint, plain)


def _read_single(hint: Any, plain: Any) -> Any:
    """A value that has no parts, or whose parts are not known."""
    if hint is Path and isinstance(plain, str):
        return Path(plain)
    is_one_of = get_origin(hint) is Literal and plain in get_args(hint)
    # A bool is an int to isinstance, and an int is a float to people.
    has_type = type(plain) is hint or (hint is float and type(plain) is int)
    if hint is Any or is_one_of or has_type:
        return plain
    raise ValueError(f"{plain!r:.60} is not of the type {hint}")


def _read_optional(kinds: tuple[Any, ...], plain: Any) -> Any:
    """A value or None; unions of several types have no place in a message."""
    if plain is None and NoneType in kinds:
        return None
    (kind,) = (one for one in kinds if one is not NoneType)
    return _read(kind, plain)
