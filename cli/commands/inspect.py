"""``compress inspect``: what a file is, without running it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import common as options
from cli.output.console import Output

if TYPE_CHECKING:
    from compressor.core.types import ModelSpec

_NAMES_SHOWN = 10


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A checkpoint or an ONNX file.")],
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> int:
    """Show what a checkpoint or an ONNX file is, and what it says of itself."""
    from compressor.system.files import sha256_file

    with Output(as_json=as_json, quiet=quiet) as output:
        fields = _describe_onnx(file) if file.suffix == ".onnx" else _describe_checkpoint(file)
        fields["sha256"] = sha256_file(file)
        rows = [
            (name.replace("_", " "), _shown(value)) for name, value in fields.items() if name not in ("claim", "notes")
        ]
        claim = fields.get("claim")
        if claim:
            rows += [
                (f"claim: {name.replace('_', ' ')}", _shown(claim[name]))
                for name in ("samples", "clean_correct", "robust", "norm", "eps", "suite")
            ]
        output.table(str(file), ["field", "value"], rows, figures=False)
        for note in fields.get("notes", ()):
            output.note(note)
        output.json("compress.inspect/1", fields)
    return 0


def _describe_checkpoint(path: Path) -> dict[str, Any]:
    from compressor.checkpoint import load_checkpoint, normalization_name, read_state
    from compressor.checkpoint.own_format import parse_own
    from compressor.models.classifier import count_parameters, family_name
    from compressor.models.user_code import is_user_code

    own = parse_own(path, read_state(path).metadata)
    if own is not None and is_user_code(own[0].name):
        return _describe_own_code(own[0])
    loaded = load_checkpoint(path)
    spec = loaded.spec
    candidates = {normalization_name(candidate.normalization) for candidate in loaded.open_questions}
    return {
        "kind": "checkpoint",
        "family": family_name(spec.name),
        "model": spec.name,
        "parameters": count_parameters(loaded.classifier),
        "classes": spec.classes,
        "image_size": spec.image_size,
        "normalization": "unknown" if len(candidates) > 1 else normalization_name(spec.normalization),
        "claim": None,
        "notes": list(loaded.notes),
    }


def _describe_own_code(spec: ModelSpec) -> dict[str, Any]:
    """What the file says of a network that is someone's code: to build it would be to run that code."""
    from compressor.checkpoint import normalization_name
    from compressor.models.classifier import family_name

    return {
        "kind": "checkpoint",
        "family": family_name(spec.name),
        "model": spec.name,
        "source_sha256": spec.source_sha256,
        "parameters": None,
        "classes": spec.classes,
        "image_size": spec.image_size,
        "normalization": normalization_name(spec.normalization),
        "claim": None,
        "notes": ["the network is code that was not run, so its parameters are not counted"],
    }


def _describe_onnx(path: Path) -> dict[str, Any]:
    from compressor.core.errors import UnreadableModelError
    from compressor.models.classifier import family_name
    from exporters.artifact.app_metadata import AppMetadata, read_app_metadata
    from exporters.claim.claim import ClaimMismatchError, read_claim
    from exporters.model_file.opset import opset_of
    from exporters.model_file.structure import count_model_parameters, declared_layout_of, load_untrusted

    checked = load_untrusted(path)
    notes = []
    try:
        claim = read_claim(checked.model)
    except ClaimMismatchError as error:
        claim, notes = None, [f"{error}: do not rely on this file"]
    notes += [] if claim or notes else ["the file makes no claim"]
    app = AppMetadata(None, None)
    try:
        app = read_app_metadata(checked.model)
    except UnreadableModelError as error:
        notes.append(error.message)
    if claim and app.class_names not in (None, claim.class_names):
        notes.append("the classes in its metadata are not those of its claim: do not rely on them")
    form = declared_layout_of(checked.model)
    if app.class_names is not None and len(app.class_names) != form.classes:
        notes.append(f"its metadata names {len(app.class_names)} classes, and it gives {form.classes} logits")
    recipe = (claim.recipe if claim else None) or {}
    preprocessing = claim.preprocessing if claim else {}
    return {
        "kind": "onnx",
        "family": family_name(str(recipe["model"])) if "model" in recipe else None,
        "model": recipe.get("model"),
        "parameters": count_model_parameters(checked.model),
        "classes": form.classes,
        "image_size": form.height,
        "input": str(form),
        "normalization": preprocessing.get("normalization", "unknown"),
        "opset": opset_of(checked.model),
        "ir_version": checked.model.ir_version,
        "class_names": None if app.class_names is None else list(app.class_names),
        "preprocessing": app.preprocessing,
        "claim": claim.to_json() if claim else None,
        "notes": notes,
    }


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')}: {entry}" for name, entry in value.items())
    if isinstance(value, list):
        more = f" and {len(value) - _NAMES_SHOWN} more" if len(value) > _NAMES_SHOWN else ""
        return ", ".join(map(_shown, value[:_NAMES_SHOWN])) + more
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
