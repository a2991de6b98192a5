"""What an exported file says of itself: counts, threat, data and digests, as canonical JSON in its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, cast

import onnx

from compressor.core.errors import UnreadableClaimError, UsageError
from compressor.core.types import Threat
from compressor.system.files import canonical_json, sha256_bytes, unique_keys
from exporters.claim.json_schema import Schema, conforms

KEY = "compress.claim"
SCHEMA_NAME = "compress.claim"
SCHEMA_VERSION = 3

PRECISIONS = ("fp32", "fp16", "int8")

MAX_CHARACTERS = 1 << 20
MAX_COUNT = 10_000_000

_COUNT = {"type": "integer", "minimum": 0, "maximum": MAX_COUNT}
# The pattern is for validators that do not know the format: at least no control characters.
_TEXT = {"type": "string", "maxLength": 200, "pattern": r"^[^\u0000-\u001f\u007f-\u009f]*$", "format": "printable"}
_DIGEST = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_DIGEST_OR_NULL = {**_DIGEST, "type": ["string", "null"]}
_OBJECT_OR_NULL = {"type": ["object", "null"]}

FIELDS: Mapping[str, Schema] = {
    "samples": _COUNT,
    "clean_correct": _COUNT,
    "robust": _COUNT,
    "norm": {"type": "string", "enum": ["Linf", "L2"]},
    # A subset of what Threat reads: no exponent, because 1e-999999999 is short to write and endless to compute.
    "eps": {"type": "string", "pattern": r"^[0-9]{1,9}(\.[0-9]{1,15})?(/[1-9][0-9]{0,8})?$"},
    "suite": _TEXT,
    "seeds": {
        "type": "array",
        "minItems": 1,
        "maxItems": 100,
        "items": {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
    },
    "versions": {"type": "object", "additionalProperties": _TEXT},
    "runtime": {"type": "object"},
    "class_names": {"type": "array", "maxItems": MAX_COUNT, "items": _TEXT},
    "preprocessing": {
        "type": "object",
        "required": ["channels", "image_size"],
        "properties": {"channels": _COUNT, "image_size": {**_COUNT, "description": "The side of an image, in pixels."}},
    },
    "precision": {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string", "enum": list(PRECISIONS)}},
    },
    "dataset": {
        "type": "object",
        "required": ["digest", "draw", "name", "split", "total"],
        "properties": {
            "digest": {**_DIGEST, "description": "Of the split's images, labels and class names."},
            "draw": {**_TEXT, "description": "The rule that chose the images, ``name@version``."},
            "name": _TEXT,
            "split": _TEXT,
            "total": {**_COUNT, "description": "Images in the split."},
        },
    },
    "recipe": _OBJECT_OR_NULL,
    "teacher": _DIGEST_OR_NULL,
    "student": _DIGEST_OR_NULL,
    "licences": _OBJECT_OR_NULL,
    "evidence": _DIGEST,
    "model": _DIGEST,
    "alarms": {
        "type": "array",
        "maxItems": 100,
        "uniqueItems": True,
        "items": {"type": "string", "pattern": "^[a-z][a-z0-9-]{0,39}$"},
    },
    "digest": _DIGEST,
}
"""What each field may hold; ``docs/claim.schema.json`` is generated from it."""


class ClaimMismatchError(Exception):
    """A claim that contradicts itself: its own digest is not that of its text. A proven violation, not a user error."""


@dataclass(frozen=True)
class Claim:
    """What is claimed of one model file, and all that is needed to check it. Integers, not rates.

    Attributes:
        samples: n, the images in the evidence.
        clean_correct: c, how many of them are classified correctly.
        robust: k, how many no attack of the suite broke.
        norm: the norm of the threat, ``Linf`` or ``L2``.
        eps: its radius as text, such as ``8/255``, in units of the pixel range.
        suite: the verifier's suite that sealed it, ``name@version``.
        seeds: the seeds of its independent runs.
        versions: library name to version.
        runtime: onnxruntime's provider, threads, CPU features and so on, as ``Session.describe`` gives them.
        class_names: in the order of the logits.
        preprocessing: at least ``image_size`` and ``channels``; eps applies after it.
        precision: ``name``, one of ``fp32``, ``fp16`` and ``int8``, and how the file was made from the fp32 one.
        dataset: ``name``, ``split``, ``digest``, ``total`` and ``draw`` (the rule that chose the images).
        recipe: the resolved training recipe, or None where it is not known.
        teacher: SHA-256 of the teacher's file, or None.
        student: SHA-256 of the checkpoint that was exported, or None.
        licences: what is known of the licences of data and teacher, or None.
        evidence: SHA-256 of the evidence file's bytes.
        model: SHA-256 of the ModelProto without this claim, as :func:`model_digest` computes it.
        alarms: the alarms raised when it was sealed, by name, sorted: signs that its attacks failed because of masked
            gradients.
        digest: SHA-256 of the claim's canonical JSON with this field blank.
    """

    samples: int
    clean_correct: int
    robust: int
    norm: str
    eps: str
    suite: str
    seeds: tuple[int, ...]
    versions: dict[str, str]
    runtime: dict[str, Any]
    class_names: tuple[str, ...]
    preprocessing: dict[str, Any]
    precision: dict[str, Any]
    dataset: dict[str, Any]
    recipe: dict[str, Any] | None
    teacher: str | None
    student: str | None
    licences: dict[str, Any] | None
    evidence: str
    model: str
    alarms: tuple[str, ...] = ()
    digest: str = ""

    @property
    def threat(self) -> Threat:
        """The claimed threat model."""
        return Threat(cast(Any, self.norm), self.eps)

    def to_json(self) -> dict[str, Any]:
        """The claim as a JSON object, its schema among the fields."""
        return {"schema": f"{SCHEMA_NAME}/{SCHEMA_VERSION}", **asdict(self)}

    def to_text(self) -> str:
        """Canonical JSON: equal claims give equal text."""
        return canonical_json(self.to_json())

    def sealed(self) -> Claim:
        """The same claim with its own digest filled in."""
        blank = replace(self, digest="")
        return replace(self, digest=sha256_bytes(blank.to_text().encode()))


def parse_claim(text: str) -> Claim:
    """Read a claim of unknown origin.

    Args:
        text: the value of the metadata entry.

    Raises:
        UnreadableClaimError: not the JSON of a claim, or of a newer schema than this program knows.
        ClaimMismatchError: it reads well, and is not what its own digest was computed over.
    """
    value = _read_json(text)
    _check_schema(value)
    known = {field.name for field in fields(Claim)}
    if set(value) - {"schema"} != known:
        missing, extra = sorted(known - set(value)), sorted(set(value) - known - {"schema"})
        raise UnreadableClaimError(
            f"the claim lacks {_listed(missing)} and has {_listed(extra)} that this schema does not know."
        )
    for name, schema in FIELDS.items():
        if not conforms(value[name], schema) or (name == "alarms" and value[name] != sorted(value[name])):
            raise UnreadableClaimError(f"the claim's field {name!r} does not hold what this schema says.")
    arguments: dict[str, Any] = {name: value[name] for name in known}
    arguments |= {name: tuple(value[name]) for name in ("seeds", "class_names", "alarms")}
    claim = Claim(**arguments)
    # Canonical text has one spelling: anything else was edited after it was sealed.
    if claim.to_text() != text or claim.sealed().digest != claim.digest:
        raise ClaimMismatchError("the claim is not the one that its digest was computed over")
    try:
        _ = claim.threat
    except UsageError as error:
        raise UnreadableClaimError(f"the claim's threat makes no sense: {error.message}") from error
    if not claim.robust <= claim.clean_correct <= claim.samples:
        raise ClaimMismatchError("the claim counts more robust than correct, or more correct than all images")
    return claim


def read_claim(model: onnx.ModelProto) -> Claim | None:
    """The claim inside ``model``, or None where there is none.

    Raises:
        UnreadableClaimError: it cannot be read, or there are two.
        ClaimMismatchError: it contradicts itself.
    """
    texts = [entry.value for entry in model.metadata_props if entry.key == KEY]
    if len(texts) > 1:
        raise UnreadableClaimError(f"the file holds {len(texts)} claims, and one was expected.")
    return parse_claim(texts[0]) if texts else None


def with_claim(model: onnx.ModelProto, claim: Claim) -> onnx.ModelProto:
    """A copy of ``model`` that carries ``claim`` in place of any it had."""
    copy = _without_claim(model)
    entry = copy.metadata_props.add()
    entry.key, entry.value = KEY, claim.to_text()
    return copy


def model_digest(model: onnx.ModelProto) -> str:
    """SHA-256 of the model's deterministic serialisation with only its claim left out."""
    return sha256_bytes(model_bytes(_without_claim(model)))


def model_bytes(model: onnx.ModelProto) -> bytes:
    """The bytes of ``model``: equal models give equal bytes."""
    return bytes(model.SerializeToString(deterministic=True))


def _without_claim(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = [entry for entry in model.metadata_props if entry.key != KEY]
    del copy.metadata_props[:]
    copy.metadata_props.extend(kept)
    return copy


def _read_json(text: str) -> dict[str, Any]:
    if len(text) > MAX_CHARACTERS:
        raise UnreadableClaimError(f"the claim is longer than {MAX_CHARACTERS} characters.")
    try:
        value = json.loads(text, object_pairs_hook=unique_keys, parse_constant=_refuse)
        canonical_json(value).encode()
    except (ValueError, RecursionError) as error:
        raise UnreadableClaimError("the claim is not the JSON of a claim.") from error
    if not isinstance(value, dict):
        raise UnreadableClaimError("the claim is not a JSON object.")
    return value


def _check_schema(value: dict[str, Any]) -> None:
    name, _, number = str(value.get("schema")).partition("/")
    if name != SCHEMA_NAME or not number.isascii() or not number.isdecimal() or len(number) > 6:
        raise UnreadableClaimError("the claim does not name its schema.")
    if int(number) != SCHEMA_VERSION:
        raise UnreadableClaimError(
            f"the claim has schema {name}/{number}, and this program knows {name}/{SCHEMA_VERSION}.",
            "Install a newer version of this program."
            if int(number) > SCHEMA_VERSION
            else "Export the checkpoint again: this program reads no claims of earlier versions.",
        )


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _listed(names: list[str]) -> str:
    return ", ".join(repr(name[:40]) for name in names[:5]) or "nothing"
