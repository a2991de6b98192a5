"""As much of JSON Schema (2020-12) as a claim needs, read strictly: what this accepts, any validator accepts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

KEYWORDS = frozenset(
    {
        *("type", "enum", "description"),
        *("minimum", "maximum"),
        *("maxLength", "pattern", "format"),
        *("items", "minItems", "maxItems", "uniqueItems"),
        *("required", "properties", "additionalProperties"),
    }
)
"""What :func:`conforms` knows; a schema of other words would be checked in part."""

_TYPES = {"object": dict, "array": list, "string": str, "integer": int, "null": type(None)}


def conforms(value: Any, schema: Schema) -> bool:
    """Whether a value that came from JSON is what a schema says.

    Stricter than the standard in three ways: ``1.0`` is no integer, ``pattern`` is about the whole text, and the format
    ``printable`` (:meth:`str.isprintable`) is checked, which others take for a remark.

    Args:
        value: of the types that :mod:`json` makes.
        schema: of the words in :data:`KEYWORDS`.
    """
    if not _is_of_type(value, schema) or ("enum" in schema and value not in schema["enum"]):
        return False
    match value:
        case str():
            return _is_text(value, schema)
        case int():
            return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))
        case list():
            return _is_array(value, schema)
        case dict():
            return _is_object(value, schema)
    return True


def _is_of_type(value: Any, schema: Schema) -> bool:
    kinds = schema.get("type")
    if kinds is None:
        return True
    return type(value) in {_TYPES[kind] for kind in ([kinds] if isinstance(kinds, str) else kinds)}


def _is_text(value: str, schema: Schema) -> bool:
    return (
        len(value) <= schema.get("maxLength", len(value))
        and ("pattern" not in schema or re.fullmatch(schema["pattern"], value) is not None)
        and (schema.get("format") != "printable" or value.isprintable())
    )


def _is_array(value: list[Any], schema: Schema) -> bool:
    return (
        schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
        and all(conforms(item, schema.get("items", {})) for item in value)
        and (not schema.get("uniqueItems", False) or all(item not in value[:i] for i, item in enumerate(value)))
    )


def _is_object(value: dict[str, Any], schema: Schema) -> bool:
    members, others = schema.get("properties", {}), schema.get("additionalProperties", {})
    return set(schema.get("required", ())) <= set(value) and all(
        conforms(member, members.get(name, others)) for name, member in value.items()
    )
