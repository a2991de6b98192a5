"""What the caller's own data add: the evidence is the draw that a dataset's digest fixes, or other images are tried."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compressor.core.contracts import Dataset
from compressor.core.errors import ClassMismatchError
from compressor.data.datasets import DRAW_RULE
from exporters.claim.claim import Claim
from exporters.claim.evidence import DigestEvidence, Evidence, image_digests
from exporters.file_attacks.target import open_file_target
from exporters.verification.record import CallerInputError, Record, as_caller_input
from exporters.verification.results import (
    Bound,
    Claimed,
    EvidenceRead,
    ExaminedImages,
    Opened,
    Result,
)
from exporters.verification.verifier_data import EvidenceDraw, draw_images

DATA = "data"


def bind_by_dataset(record: Record) -> Result:
    """Where the caller holds the claim's dataset, the evidence must be its draw; another one serves as a fresh test."""
    claim, evidence = _claim_and_evidence(record)
    dataset = open_verifier_data(record, claim.class_names)
    drawn = as_caller_input(lambda: draw_images(dataset, len(evidence)))
    if drawn.digest != claim.dataset["digest"]:
        return Result(
            checks=record.check("skipped", f"{drawn.name} is not the dataset of the claim: it serves as a fresh test")
        )
    same = drawn.total == claim.dataset["total"] and np.array_equal(drawn.labels, evidence.labels)
    if isinstance(evidence, DigestEvidence):
        same = same and np.array_equal(image_digests(drawn.images), evidence.image_sha256)
    else:
        same = same and np.array_equal(drawn.images, evidence.images)
    return _conclude(record, claim, drawn.name, drawn, is_the_draw=same)


def bind_by_manifest(record: Record) -> Result:
    """Where the caller has a manifest of the claim's dataset, the evidence must be the draw that it fixes."""
    claim, evidence = _claim_and_evidence(record)
    manifest, shape = record.trust.manifest, record.of(Opened).session.image_shape
    assert manifest is not None  # the step is done where there is one
    if manifest.digest != claim.dataset["digest"]:
        other = f"the manifest is one of {_few([manifest.name])}, not of the dataset of the claim"
        if manifest.shape != shape:
            other += f": its images are {_sides(manifest.shape)}, the model takes {_sides(shape)}"
        return Result(checks=record.check("skipped", other))
    digests = evidence.image_sha256 if isinstance(evidence, DigestEvidence) else image_digests(evidence.images)
    images, labels = manifest.drawn(len(evidence))
    same = claim.dataset["total"] == len(manifest.labels) and manifest.class_names == claim.class_names
    same = same and np.array_equal(digests, images) and np.array_equal(evidence.labels, labels)
    return _conclude(record, claim, f"the manifest of {_few([manifest.name])}", None, is_the_draw=same)


def say_unbound(record: Record) -> Result:
    """Without a dataset and a manifest, nothing binds the images."""
    return Result(checks=record.check("skipped", "no dataset was given: the exporter chose the images"))


def take_evidence(record: Record) -> Result:
    """The images to attack: the evidence's own, or the caller's where it came without any."""
    claim, evidence = _claim_and_evidence(record)
    if isinstance(evidence, DigestEvidence):
        drawn = next((bound.draw for bound in record.all(Bound) if bound.draw is not None), None)
        if drawn is None:
            return record.end(
                "undecided",
                "the evidence holds no images, only their digests",
                "Verifying it needs the dataset: name it with --data.",
            )
        evidence = evidence.with_images(drawn.images)
    opened = record.of(Opened)
    target = open_file_target(opened.session, evidence.natural(), opened.model)
    return ExaminedImages(
        images=evidence.images, labels=evidence.labels, threat=claim.threat, target=target, evidence=evidence
    )


def holds_the_dataset(record: Record) -> bool:
    """Whether the images that are attacked are of the caller's own dataset."""
    return any(bound.draw is not None for bound in record.all(Bound))


def _claim_and_evidence(record: Record) -> tuple[Claim, Evidence | DigestEvidence]:
    evidence = record.of(EvidenceRead).evidence
    assert evidence is not None  # the step that read it has not ended the run
    return record.of(Claimed).claim, evidence


def _conclude(record: Record, claim: Claim, name: str, drawn: EvidenceDraw | None, *, is_the_draw: bool) -> Result:
    if claim.dataset["draw"] != DRAW_RULE:
        return record.end("undecided", f"this program does not know the draw rule {claim.dataset['draw']!r}")
    if not is_the_draw:
        return record.end(
            "failed",
            f"the images are not those that the digest of {name} draws",
            "The exporter chose the images.",
        )
    checks = record.check("passed", f"the images are those that the digest of {name} draws")
    return Bound(checks=checks, draw=drawn, to_a_dataset=True)


def open_verifier_data(record: Record, class_names: tuple[str, ...] | None) -> Dataset:
    """The caller's dataset, at the model's image size and with the model's classes.

    Args:
        record: what is asked, and the open file.
        class_names: what the claim calls the classes; None without a claim: then their number alone must fit.

    Raises:
        CallerInputError: it has other classes: a figure on those refutes nothing.
    """
    session = record.of(Opened).session
    names = class_names or tuple(map(str, range(session.classes)))
    dataset = as_caller_input(lambda: record.request.open_data(session.image_shape[1], names))
    if len(dataset.class_names) != session.classes:
        raise CallerInputError(
            ClassMismatchError(
                f"the model has {session.classes} classes, and {dataset.name} has {len(dataset.class_names)}.",
                "Give the data that the model was made for.",
            )
        )
    if class_names is not None and tuple(dataset.class_names) != class_names:
        raise CallerInputError(
            ClassMismatchError(
                f"{dataset.name} has the classes {_few(dataset.class_names)}, and the claim's are {_few(class_names)}.",
                "Give data whose classes have the same names in the same order.",
            )
        )
    return dataset


def why_not_of_model(drawn: EvidenceDraw, image_shape: tuple[int, ...]) -> tuple[str, str] | None:
    """Why the images cannot be attacked, and what to do: there are none, or the model takes others."""
    if len(drawn.labels) == 0:
        return f"{drawn.name} has no test images", "Verify with data that has a test split."
    if drawn.images.shape[1:] != image_shape:
        return (
            f"the model takes {_sides(image_shape)} images; {drawn.name} has {_sides(drawn.images.shape[1:])}",
            "Verify with images of the model's size and number of channels.",
        )
    return None


def _sides(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _few(names: Sequence[str]) -> str:
    """The first names, shortened and free of control characters: some come from the file."""
    shown = ["".join(letter for letter in name[:20] if letter.isprintable()) for name in names[:4]]
    return ", ".join(shown) + (", ..." if len(names) > 4 else "")
