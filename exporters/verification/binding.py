"""What the caller's own data add: the evidence is the draw that a dataset's digest fixes, or other images are tried."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compressor.core.contracts import Dataset
from compressor.core.errors import ClassMismatchError
from compressor.data.datasets import DRAW_RULE
from exporters.claim.claim import Claim
from exporters.claim.evidence import DigestEvidence, Evidence, image_digests
from exporters.model_file.runtime import Session
from exporters.verification.manifest import Manifest
from exporters.verification.record import CallerInputError, Record, as_caller_input
from exporters.verification.request import VerifierData
from exporters.verification.verifier_data import EvidenceDraw, draw_images

DATA = "data"


def bind_to_data(record: Record, claim: Claim, evidence: Evidence | DigestEvidence, session: Session) -> Evidence:
    """Where the caller holds the claim's dataset, or a manifest of it, the evidence must be its draw.

    Returns:
        The evidence, with the caller's own images where it came without any.
    """
    record.begin(DATA)
    drawn = _bind_by_dataset(record, claim, evidence, session)
    if not record.bound:
        _bind_by_manifest(record, claim, evidence, session)
    if record.options.data is None and record.trust.manifest is None:
        record.note("skipped", "no dataset was given: the exporter chose the images")
    if isinstance(evidence, Evidence):
        return evidence
    if drawn is None:
        record.settle(
            "undecided",
            "the evidence holds no images, only their digests",
            "Verifying it needs the dataset: name it with --data.",
        )
    return evidence.with_images(drawn.images)


def _bind_by_dataset(
    record: Record, claim: Claim, evidence: Evidence | DigestEvidence, session: Session
) -> EvidenceDraw | None:
    """The draw of the caller's dataset, if that is the claim's."""
    data = record.options.data
    if data is None:
        return None
    dataset = open_verifier_data(data, session, claim.class_names)
    drawn = as_caller_input(lambda: draw_images(dataset, len(evidence)))
    if drawn.digest != claim.dataset["digest"]:
        record.note("skipped", f"{drawn.name} is not the dataset of the claim: it serves as a fresh test")
        return None
    record.has_claimed_data = True
    same = drawn.total == claim.dataset["total"] and np.array_equal(drawn.labels, evidence.labels)
    if isinstance(evidence, DigestEvidence):
        same = same and np.array_equal(image_digests(drawn.images), evidence.image_sha256)
    else:
        same = same and np.array_equal(drawn.images, evidence.images)
    _conclude(record, claim, drawn.name, is_the_draw=same)
    return drawn


def _bind_by_manifest(record: Record, claim: Claim, evidence: Evidence | DigestEvidence, session: Session) -> None:
    manifest: Manifest | None = record.trust.manifest
    if manifest is None:
        return
    if manifest.digest != claim.dataset["digest"]:
        other = f"the manifest is one of {_few([manifest.name])}, not of the dataset of the claim"
        if manifest.shape != session.image_shape:
            other += f": its images are {_sides(manifest.shape)}, the model takes {_sides(session.image_shape)}"
        record.note("skipped", other)
        return
    digests = evidence.image_sha256 if isinstance(evidence, DigestEvidence) else image_digests(evidence.images)
    images, labels = manifest.drawn(len(evidence))
    same = claim.dataset["total"] == len(manifest.labels) and manifest.class_names == claim.class_names
    same = same and np.array_equal(digests, images) and np.array_equal(evidence.labels, labels)
    _conclude(record, claim, f"the manifest of {_few([manifest.name])}", is_the_draw=same)


def _conclude(record: Record, claim: Claim, name: str, *, is_the_draw: bool) -> None:
    if claim.dataset["draw"] != DRAW_RULE:
        record.settle("undecided", f"this program does not know the draw rule {claim.dataset['draw']!r}")
    if not is_the_draw:
        record.settle(
            "failed",
            f"the images are not those that the digest of {name} draws",
            "The exporter chose the images.",
        )
    record.bound = True
    record.note("passed", f"the images are those that the digest of {name} draws")


def open_verifier_data(data: VerifierData, session: Session, class_names: tuple[str, ...] | None) -> Dataset:
    """The caller's dataset, at the model's image size and with the model's classes.

    Args:
        data: what the caller holds.
        session: the file.
        class_names: what the claim calls the classes; None without a claim: then their number alone must fit.

    Raises:
        CallerInputError: it has other classes: a figure on those refutes nothing.
    """
    dataset = as_caller_input(lambda: data.open(session.image_shape[1]))
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


def require_images_of_model(record: Record, drawn: EvidenceDraw, session: Session) -> None:
    """Settle the answer as undecided unless there are images, of the shape that the model takes."""
    if len(drawn.labels) == 0:
        record.settle("undecided", f"{drawn.name} has no test images", "Verify with data that has a test split.")
    if drawn.images.shape[1:] != session.image_shape:
        record.settle(
            "undecided",
            f"the model takes {_sides(session.image_shape)} images; {drawn.name} has {_sides(drawn.images.shape[1:])}",
            "Verify with images of the model's size and number of channels.",
        )


def _sides(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _few(names: Sequence[str]) -> str:
    """The first names, shortened and free of control characters: some come from the file."""
    shown = ["".join(letter for letter in name[:20] if letter.isprintable()) for name in names[:4]]
    return ", ".join(shown) + (", ..." if len(names) > 4 else "")
