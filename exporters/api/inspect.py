"""``exporters.inspect``: what a file is, without running it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from compressor.core.notebook import html_table
from compressor.system.files import AnyPath, sha256_file
from exporters.api.arguments import BEST, file_of

_NAMES_SHOWN = 10
_OF_CLAIM = ("samples", "clean_correct", "robust", "norm", "eps", "suite")
_OF_ONNX = ("input", "opset", "ir_version", "class_names", "preprocessing")


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What a checkpoint or an ONNX file is, and what it says of itself; the fields are in the order of the JSON.

    Attributes:
        path: the file.
        kind: ``checkpoint`` or ``onnx``.
        family: the architecture's family; None where the file does not say.
        model: the architecture.
        source_sha256: of the user's own source file, for a network that is the user's code.
        parameters: how many numbers training may change; None for code that was not run.
        classes: K, how many logits.
        image_size: side of the images in pixels; None where the file leaves it open.
        input: of an ONNX file, the images that it takes, in words.
        normalization: by name or numbers; ``unknown`` where it is not recorded.
        opset: of an ONNX file.
        ir_version: of an ONNX file.
        class_names: of an ONNX file, what its metadata calls the logits.
        preprocessing: of an ONNX file, what its metadata says is to be done to images.
        claim: of an ONNX file, its claim as JSON; None where it makes none that can be relied on.
        notes: what a reader should know, in sentences.
        sha256: of the file's bytes.
    """

    path: Path
    kind: Literal["checkpoint", "onnx"]
    family: str | None
    model: str | None
    source_sha256: str | None = None
    parameters: int | None = None
    classes: int
    image_size: int | None = None
    input: str | None = None
    normalization: str
    opset: int | None = None
    ir_version: int | None = None
    class_names: tuple[str, ...] | None = None
    preprocessing: dict[str, Any] | None = None
    claim: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    sha256: str

    def __fspath__(self) -> str:
        return str(self.path)

    def to_json(self) -> dict[str, Any]:
        """What ``compress inspect --json`` prints."""
        names = [one.name for one in fields(self) if one.name != "path"]
        values = {name: getattr(self, name) for name in names if self._has(name)}
        listed = {name: list(value) for name, value in values.items() if isinstance(value, tuple)}
        return values | listed

    def _has(self, name: str) -> bool:
        """Whether a file of this kind has the field at all."""
        if name == "source_sha256":
            return self.source_sha256 is not None
        return self.kind == "onnx" or name not in _OF_ONNX

    def rows(self) -> list[tuple[str, str]]:
        """The fields as a table of names and values; the notes are not among them."""
        plain = self.to_json()
        rows = [(name, plain[name]) for name in plain if name not in ("claim", "notes")]
        if self.claim is not None:
            rows += [(f"claim: {name}", self.claim[name]) for name in _OF_CLAIM]
        return [(name.replace("_", " "), _shown(value)) for name, value in rows]

    def _repr_html_(self) -> str:
        """Return the table and the notes, for a notebook."""
        return html_table(str(self.path), ["field", "value"], self.rows(), self.notes)


def inspect(file: AnyPath) -> Inspection:
    """Read what a checkpoint or an ONNX file is, and what it says of itself, without running it.

    Args:
        file: the checkpoint or ONNX file, an artifact, or a run or its folder (its best checkpoint).

    Returns:
        What was found.

    Raises:
        MissingInputError: there is no such file.
        UnreadableCheckpointError, UnsafeCheckpointError, UnknownArchitectureError: a checkpoint cannot be read.
        UnreadableModelError: an ONNX file is damaged or unsafe.

    Example:
        >>> from exporters import inspect
        >>> found = inspect("model.onnx")
        >>> found.kind, found.classes, found.claim["eps"]
        ('onnx', 10, '4/255')
    """
    path = file_of(file, BEST)
    return _of_onnx(path) if path.suffix == ".onnx" else _of_checkpoint(path)


def _of_checkpoint(path: Path) -> Inspection:
    from compressor.checkpoint import load_checkpoint, normalization_name, read_state
    from compressor.checkpoint.own_format import parse_own
    from compressor.models.classifier import count_parameters
    from compressor.models.in_memory import is_in_memory
    from compressor.models.user_code import is_user_code

    own = parse_own(path, read_state(path).metadata)
    reason = None
    if own is not None and is_user_code(own[0].name):
        reason = "the network is code that was not run"
    elif own is not None and is_in_memory(own[0].name):
        reason = "the network was a module in memory, and its code is not in the file"
    if own is not None and reason is not None:
        spec, parameters, is_known = own[0], None, True
        notes: tuple[str, ...] = (f"{reason}, so its parameters are not counted",)
    else:
        loaded = load_checkpoint(path)
        spec, parameters, notes = loaded.spec, count_parameters(loaded.classifier), tuple(loaded.notes)
        is_known = len({normalization_name(candidate.normalization) for candidate in loaded.open_questions}) <= 1
    return Inspection(
        path=path,
        kind="checkpoint",
        family=_family(spec.name),
        model=spec.name,
        source_sha256=spec.source_sha256,
        parameters=parameters,
        classes=spec.classes,
        image_size=spec.image_size,
        normalization=normalization_name(spec.normalization) if is_known else "unknown",
        notes=notes,
        sha256=sha256_file(path),
    )


def _of_onnx(path: Path) -> Inspection:
    from compressor.core.errors import UnreadableModelError
    from exporters.artifact.app_metadata import AppMetadata, read_app_metadata
    from exporters.claim.claim import ClaimMismatchError, read_claim
    from exporters.model_file.opset import opset_of
    from exporters.model_file.structure import count_model_parameters, declared_layout_of, load_untrusted

    checked = load_untrusted(path)
    notes: list[str] = []
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
    return Inspection(
        path=path,
        kind="onnx",
        family=_family(str(recipe["model"])) if "model" in recipe else None,
        model=recipe.get("model"),
        parameters=count_model_parameters(checked.model),
        classes=form.classes,
        image_size=form.height,
        input=str(form),
        normalization=preprocessing.get("normalization", "unknown"),
        opset=opset_of(checked.model),
        ir_version=checked.model.ir_version,
        class_names=app.class_names,
        preprocessing=app.preprocessing,
        claim=claim.to_json() if claim else None,
        notes=tuple(notes),
        sha256=sha256_file(path),
    )


def _family(name: str) -> str | None:
    """The family of a model's name, which may be one that this program does not know."""
    from compressor.core.errors import UnknownNameError
    from compressor.models.classifier import family_name
    from compressor.models.in_memory import is_in_memory

    if is_in_memory(name):
        return "module"
    try:
        return family_name(name)
    except UnknownNameError:
        return None


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')}: {entry}" for name, entry in value.items())
    if isinstance(value, list):
        more = f" and {len(value) - _NAMES_SHOWN} more" if len(value) > _NAMES_SHOWN else ""
        return ", ".join(map(_shown, value[:_NAMES_SHOWN])) + more
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
