"""The published schema of a claim: what the reader refuses, it refuses; the reader goes by the same table."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.core.errors import UnreadableClaimError
from compressor.system.files import canonical_json, sha256_bytes
from exporters.claim.claim import FIELDS, Claim, ClaimMismatchError, parse_claim
from exporters.claim.json_schema import KEYWORDS, conforms
from tests.support.claims import example_claim

SCHEMA = json.loads((Path(__file__).parents[3] / "docs" / "claim.schema.json").read_text(encoding="utf-8"))

CLAIM = example_claim()


def object_of(claim: Claim) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(claim.to_text())
    return value


def is_read(value: dict[str, Any]) -> bool:
    """Whether the reader takes this object for a claim; a digest that fits is put in."""
    try:
        digest = sha256_bytes(canonical_json(value | {"digest": ""}).encode())
        parse_claim(canonical_json(value | {"digest": digest}))
    except (UnreadableClaimError, ClaimMismatchError, ValueError):
        return False
    return True


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "integer", "minimum": 0, "maximum": 9}, [0, 9], [-1, 10, 1.0, True, "1", None]),
        ({"type": ["object", "null"]}, [None, {}, {"a": 1.5}], [[], "", 0, False]),
        ({"type": "string", "enum": ["a", "b"]}, ["a", "b"], ["c", "", ["a"], None]),
        ({"type": "string", "pattern": "^a+$"}, ["a", "aa"], ["", "a\n", "ab", " a"]),
        ({"type": "string", "maxLength": 2, "format": "printable"}, ["", "ö", "ab"], ["abc", "\u202e", "\n"]),
        (
            {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "integer"}},
            [[1], [1, 1]],
            [[], [1] * 3, ["1"]],
        ),
        ({"type": "array", "uniqueItems": True}, [[], ["a", "b"], [[1], [2]]], [["a", "a"], [[1], [1]]]),
        ({"type": "object", "required": ["a"]}, [{"a": None}, {"a": 1, "b": 2}], [{}, {"b": 1}]),
        (
            {"type": "object", "properties": {"a": {"type": "null"}}, "additionalProperties": {"type": "integer"}},
            [{}, {"a": None}, {"b": 1}],
            [{"a": 1}, {"b": None}],
        ),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_the_words_mean_what_the_standard_says(schema: dict[str, Any], good: list[Any], bad: list[Any]) -> None:
    assert [value for value in good if not conforms(value, schema)] == []
    assert [value for value in bad if conforms(value, schema)] == []


def schemas_in(schema: Any) -> Iterator[Any]:
    yield schema
    inner = [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]
    for member in inner:
        if isinstance(member, dict):
            yield from schemas_in(member)


def test_no_field_is_checked_in_part() -> None:
    assert set(FIELDS) == set(CLAIM.to_json()) - {"schema"}
    for field in FIELDS.values():
        for schema in schemas_in(field):
            assert set(schema) <= KEYWORDS


def test_every_field_says_what_it_is() -> None:
    assert {name for name, field in SCHEMA["properties"].items() if not field.get("description")} == {"schema"}


# The oracle: another implementation of the standard.

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**64) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
ODD = st.sampled_from(
    ["a" * 64, "A" * 64, "a" * 63, "x" * 201, "8/0", "1e9", "L2", "l2", "fp16", [0] * 101, ["b", "b"]]
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, member in members:
        yield from places(member, (*path, name))


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """A claim with one thing in it that is another, missing or more."""
    value = copy.deepcopy(object_of(CLAIM))
    *way, last = draw(st.sampled_from([path for path in places(value) if path and path != ("digest",)]))
    holder: Any = value
    for step in way:
        holder = holder[step]
    change = draw(st.sampled_from(["another", "odd", "missing", "more"]))
    if change == "missing":
        del holder[last]
    elif change == "more" and isinstance(holder, dict):
        holder[draw(st.text(min_size=1, max_size=8))] = draw(ANYTHING)
    else:
        holder[last] = draw(ODD if change == "odd" else ANYTHING)
    return value


@settings(max_examples=400, deadline=None)
@given(mutated())
def test_what_is_read_is_valid(value: dict[str, Any]) -> None:
    validator = pytest.importorskip("jsonschema").Draft202012Validator(SCHEMA)
    assert validator.is_valid(object_of(CLAIM))
    assert is_read(object_of(CLAIM))
    # The rest, such as counts that cannot be and the order of alarms, is refused for what no schema says.
    has_fields = (
        value.keys() == SCHEMA["properties"].keys() and value["schema"] == SCHEMA["properties"]["schema"]["const"]
    )
    if has_fields and all(conforms(value[name], field) for name, field in FIELDS.items()):
        assert validator.is_valid(value)
    else:
        assert not is_read(value)
        assert has_stricter_reading(value) or not validator.is_valid(value)


def has_stricter_reading(value: Any) -> bool:
    """Whether there is something in it that the standard reads more loosely: see :func:`conforms`."""
    if isinstance(value, dict):
        return any(map(has_stricter_reading, [*value, *value.values()]))
    if isinstance(value, list):
        return any(map(has_stricter_reading, value))
    return (isinstance(value, float) and value.is_integer()) or (isinstance(value, str) and not value.isprintable())


def test_the_schema_itself_is_valid() -> None:
    pytest.importorskip("jsonschema").Draft202012Validator.check_schema(SCHEMA)
