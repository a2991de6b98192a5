"""From a file to a classifier: ours says what it is; for others it is found out, and what stays open is said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from compressor.checkpoint.fitting import fill_network
from compressor.checkpoint.normalizations import named_normalization, normalization_name, plausible_normalizations
from compressor.checkpoint.own_format import parse_own
from compressor.checkpoint.reading import ForeignState, read_state
from compressor.checkpoint.recognising import is_named_by_user, recognise, recognise_as
from compressor.core.contracts import Recognition
from compressor.core.errors import UnknownArchitectureError, UsageError
from compressor.core.types import ModelSpec, Normalization
from compressor.models.classifier import Classifier
from compressor.system.files import sha256_file

Activation = Literal["relu", "silu"]

_IMAGE_SIZE = 32


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A classifier from a file.

    Attributes:
        classifier: on the CPU, in evaluation mode.
        spec: what it was built from; its normalisation and activation are a first guess while questions are open.
        metadata: what our own format carries (recipe, dataset, ...); empty for others' files.
        sha256: of the file's bytes.
        notes: what was inferred or left out, for people.
        open_questions: the specs that the file fits equally, likeliest first; empty where there is but one.
    """

    classifier: Classifier
    spec: ModelSpec
    metadata: Mapping[str, Any]
    sha256: str
    notes: tuple[str, ...]
    open_questions: tuple[ModelSpec, ...]


def load_checkpoint(
    path: Path,
    *,
    model: str | None = None,
    normalization: Normalization | str | None = None,
    activation: Activation | None = None,
    image_size: int | None = None,
) -> LoadedCheckpoint:
    """Read a checkpoint, our own or anyone's, and build the classifier it holds.

    Args:
        path: safetensors or a PyTorch file.
        model: the name it must be read as; ``None`` infers it from the keys.
        normalization: ``none``, ``cifar10``, ``cifar100``, ``half`` or numbers; ``None`` leaves it to the file.
        activation: ``None`` leaves it to the file.
        image_size: the side in pixels; ``None`` takes the recorded one, else 32.

    Raises:
        MissingInputError, UnreadableCheckpointError, UnsafeCheckpointError: as ``read_state``.
        UnknownArchitectureError: its keys fit no family, or its tensors do not fit the family.
        UnsafeCheckpointError: its network is code that the user did not name; see ``compressor.models.user_code``.
        UsageError: what was asked for contradicts what the file records.
    """
    if image_size is not None and image_size < 8:
        raise UsageError(f"the image size {image_size} is below 8 pixels.", "Give the side of the images in pixels.")
    foreign = read_state(path)
    own = parse_own(path, foreign.metadata)
    asked = named_normalization(normalization) if isinstance(normalization, str) else normalization
    if own is not None:
        recorded, metadata = own
        wanted = replace(
            recorded,
            name=model or recorded.name,
            normalization=recorded.normalization if normalization is None else asked,
            activation=activation or recorded.activation,
        )
        _require_agreement(path, recorded, wanted)
        spec = replace(recorded, image_size=image_size or recorded.image_size)
        classifier = Classifier(spec, fill_network(spec, foreign.state)).eval()
        return LoadedCheckpoint(classifier, spec, metadata, sha256_file(path), foreign.notes, ())
    recognition = _recognise(path, foreign, model, image_size or _IMAGE_SIZE)
    normalizations = _normalizations(foreign, recognition, asked, given=normalization is not None)
    candidates = tuple(
        ModelSpec(recognition.name, recognition.classes, image_size or _IMAGE_SIZE, norm, act)
        for act in ((activation,) if activation else recognition.activations)
        for norm in normalizations
    )
    classifier = Classifier(candidates[0], fill_network(candidates[0], recognition.state)).eval()
    return LoadedCheckpoint(
        classifier=classifier,
        spec=classifier.spec,
        metadata={},
        sha256=sha256_file(path),
        notes=(f"recognised as {recognition.name} with {recognition.classes} classes", *foreign.notes),
        open_questions=candidates if len(candidates) > 1 else (),
    )


def _recognise(path: Path, foreign: ForeignState, model: str | None, image_size: int) -> Recognition:
    if model is not None and is_named_by_user(model):
        recognition = recognise_as(model, foreign.state, image_size)
    else:
        recognition = recognise(foreign.state)
    if model is not None and model != recognition.name:
        raise UnknownArchitectureError(
            f"{path} holds {recognition.name}, not {model}.", "Leave the model out, or give the other file."
        )
    if foreign.classes not in (None, recognition.classes):
        raise UnknownArchitectureError(
            f"{path} says it has {foreign.classes} classes, and its last layer has {recognition.classes}.",
            "Give a checkpoint that agrees with itself.",
        )
    return recognition


def _normalizations(
    foreign: ForeignState, recognition: Recognition, asked: Normalization | None, *, given: bool
) -> tuple[Normalization | None, ...]:
    """One normalisation where the user or the file says which, else all that are plausible."""
    if given:
        return (asked,)
    if foreign.normalization is not None:
        return (foreign.normalization,)
    return plausible_normalizations(recognition.classes, inside_forward=recognition.normalizes)


def _require_agreement(path: Path, recorded: ModelSpec, wanted: ModelSpec) -> None:
    for what, mine, asked in (
        ("model", recorded.name, wanted.name),
        ("normalization", normalization_name(recorded.normalization), normalization_name(wanted.normalization)),
        ("activation", recorded.activation, wanted.activation),
    ):
        if mine != asked:
            raise UsageError(f"{path} records the {what} {mine}, and {asked} was asked for.", "Leave the option out.")
