"""The claim: one spelling, and no byte of it that can change unnoticed."""

from __future__ import annotations

import json
from dataclasses import replace

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from compressor.core.errors import UnreadableClaimError
from compressor.system.files import canonical_json, sha256_bytes
from exporters.claim.claim import KEY, ClaimMismatchError, model_digest, parse_claim, read_claim, with_claim
from tests.support.claims import example_claim


def resealed(value: dict[str, object]) -> str:
    """The text of a claim object with a digest that fits it."""
    digest = sha256_bytes(canonical_json(value | {"digest": ""}).encode())
    return canonical_json(value | {"digest": digest})


def make_model() -> onnx.ModelProto:
    node = helper.make_node("Identity", ["input"], ["logits"])
    images = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 2])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])
    return helper.make_model(helper.make_graph([node], "g", [images], [logits]))


def test_a_claim_comes_back_as_it_went_in() -> None:
    claim = example_claim()
    assert parse_claim(claim.to_text()) == claim
    assert read_claim(with_claim(make_model(), claim)) == claim
    assert claim.threat.radius == pytest.approx(8 / 255)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_changed_character_is_accepted(data: st.DataObject) -> None:
    text = example_claim().to_text()
    position = data.draw(st.integers(0, len(text) - 1))
    character = data.draw(st.characters(max_codepoint=0x2FF).filter(lambda c: c != text[position]))
    with pytest.raises((UnreadableClaimError, ClaimMismatchError)):
        parse_claim(text[:position] + character + text[position + 1 :])


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200) | st.recursive(st.none() | st.integers(), st.lists, max_leaves=5).map(json.dumps))
def test_what_is_no_claim_is_unreadable(text: str) -> None:
    with pytest.raises(UnreadableClaimError):
        parse_claim(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"schema":"compress.claim/3","schema":"compress.claim/3"}',
        '{"schema":"compress.claim/3","samples":NaN}',
        '{"schema":"compress.claim/3","samples":1e999}',
        '{"schema":"compress.claim/3","samples":' + "9" * 5000 + "}",
        '{"schema":"compress.claim/3","x":"\\ud800"}',
        "[" * 100_000,
        " " * ((1 << 20) + 1),
    ],
    ids=["twice", "nan", "infinity", "huge", "surrogate", "deep", "long"],
)
def test_hostile_json_is_unreadable(text: str) -> None:
    with pytest.raises(UnreadableClaimError):
        parse_claim(text)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("samples", "128"),
        ("samples", True),
        ("samples", 128.0),
        ("samples", -1),
        ("samples", 10**30),
        ("eps", "1e-999999999"),
        ("eps", "8/0"),
        ("eps", "0"),
        ("eps", "2"),
        ("norm", "L7"),
        ("seeds", []),
        ("seeds", [2**80]),
        ("class_names", [1]),
        ("class_names", ["a\u001b[31m"]),
        ("preprocessing", {}),
        ("precision", {"name": "fp8"}),
        ("dataset", {"name": "x"}),
        ("teacher", "B" * 64),
        ("evidence", "c" * 63),
        ("recipe", []),
        ("suite", "x" * 300),
        ("alarms", "half-range"),
        ("alarms", None),
        ("alarms", [1]),
        ("alarms", ["Half range\u001b[31m"]),
        ("alarms", ["a" * 41]),
        ("alarms", ["zero-gradients", "half-range"]),
        ("alarms", ["half-range", "half-range"]),
        ("alarms", [f"a{number:03}" for number in range(101)]),
    ],
)
def test_a_wrong_field_is_unreadable_even_where_every_digest_fits(field: str, value: object) -> None:
    with pytest.raises(UnreadableClaimError):
        parse_claim(resealed(example_claim().to_json() | {field: value}))


def test_missing_and_unknown_fields_are_unreadable() -> None:
    whole = example_claim().to_json()
    with pytest.raises(UnreadableClaimError, match="'robust'"):
        parse_claim(resealed({name: value for name, value in whole.items() if name != "robust"}))
    with pytest.raises(UnreadableClaimError, match="'certified'"):
        parse_claim(resealed(whole | {"certified": True}))


@pytest.mark.parametrize("schema", ["compress.claim/4", "compress.claim/99999"])
def test_a_newer_schema_is_named(schema: str) -> None:
    with pytest.raises(UnreadableClaimError, match=schema) as caught:
        parse_claim(resealed(example_claim().to_json() | {"schema": schema}))
    assert "newer" in caught.value.hint


def test_an_older_schema_is_named_with_the_way_out() -> None:
    whole = example_claim().to_json() | {"schema": "compress.claim/1"}
    with pytest.raises(UnreadableClaimError, match=r"compress\.claim/1") as caught:
        parse_claim(resealed({name: value for name, value in whole.items() if name != "alarms"}))
    assert caught.value.hint.startswith("Export the checkpoint again")


def test_counts_that_cannot_be_are_a_violation() -> None:
    with pytest.raises(ClaimMismatchError):
        parse_claim(replace(example_claim(), robust=91).sealed().to_text())


def test_another_spelling_of_the_same_claim_is_refused() -> None:
    with pytest.raises(ClaimMismatchError):
        parse_claim(json.dumps(example_claim().to_json()))


def test_the_model_digest_covers_everything_but_the_claim() -> None:
    model = make_model()
    before = model_digest(model)
    assert model_digest(with_claim(model, example_claim())) == before
    assert not any(entry.key == KEY for entry in model.metadata_props)
    helper.set_model_props(model, {"other": "metadata"})
    assert model_digest(model) != before
    model = make_model()
    model.opset_import[0].version -= 1
    assert model_digest(model) != before


def test_no_claim_and_two_claims() -> None:
    assert read_claim(make_model()) is None
    model = with_claim(make_model(), example_claim())
    model.metadata_props.add(key=KEY, value=example_claim().to_text())
    with pytest.raises(UnreadableClaimError, match="2 claims"):
        read_claim(model)
