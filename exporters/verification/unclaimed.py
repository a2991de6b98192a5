"""A file without a claim: the caller's requirements replace the claim, and the caller's data the evidence."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from compressor.core.errors import UsageError
from compressor.numerics.statistics import clopper_pearson
from exporters.claim.evidence import to_float_array
from exporters.file_attacks.attacks import resolve_suite
from exporters.file_attacks.suite import REPLAY_SUITE, VERIFY_SUITE
from exporters.file_attacks.target import open_file_target
from exporters.verification.binding import open_verifier_data, why_not_of_model
from exporters.verification.opening import NO_CLAIM
from exporters.verification.record import CallerInputError, Record, as_caller_input
from exporters.verification.results import (
    Bound,
    Chosen,
    Classified,
    ExaminedImages,
    Opened,
    Result,
)
from exporters.verification.verifier_data import draw_images

SAMPLES = 256
"""Test images that are attacked where the caller does not say how many."""

CLEAN = "clean"


def say_no_claim(record: Record) -> Result:
    """Without a threat, the file was taken for one that makes a claim."""
    return record.end("undecided", "the file makes no claim", NO_CLAIM)


def take_requirement(record: Record) -> Chosen:
    """What is required takes the place of a claim.

    Raises:
        CallerInputError: too little is said for an answer, or what is said does not fit the file.
    """
    request = record.request
    if request.data is None:
        raise _usage("the file makes no claim and brings no images.", "Name a dataset that you hold with --data.")
    if request.min_robust_accuracy is None:
        raise _usage(
            "the file makes no claim, and nothing is required of it.",
            "Add --min-robust-accuracy T, or measure it with `compress attack`.",
        )
    if request.evidence_file is not None:
        raise _usage("the file makes no claim that evidence could be of.", "Leave --evidence-file out.")
    if request.suite == REPLAY_SUITE:
        raise _usage("the file makes no claim, so there is nothing to replay.", "Leave --suite out.")
    return Chosen(suite=resolve_suite(request.suite, VERIFY_SUITE), threat=request.threat)


def _usage(message: str, hint: str) -> CallerInputError:
    return CallerInputError(UsageError(message, hint))


def draw_from_data(record: Record) -> Result:
    """Draw the images to attack from the caller's dataset, as its digest alone decides."""
    dataset = open_verifier_data(record, None)
    drawn = as_caller_input(lambda: draw_images(dataset, record.request.samples or SAMPLES))
    if (reason := why_not_of_model(drawn, record.of(Opened).session.image_shape)) is not None:
        return record.end("undecided", *reason)
    return Bound(
        checks=record.check(
            "passed", f"{len(drawn.labels)} of the {drawn.total} test images of {drawn.name}, as its digest draws them"
        ),
        draw=drawn,
        samples=len(drawn.labels),
        to_a_dataset=True,
        measured_on={
            "dataset": drawn.name,
            "digest": drawn.digest,
            "draw": drawn.rule,
            "preprocessing": asdict(record.request.preprocessing),
        },
    )


def take_draw(record: Record) -> ExaminedImages:
    """The images that were drawn, with the tolerances that the file has on them."""
    drawn, opened, threat = record.of(Bound).draw, record.of(Opened), record.of(Chosen).threat
    assert drawn is not None  # the steps before have brought both
    assert threat is not None
    target = open_file_target(opened.session, to_float_array(drawn.images), opened.model)
    return ExaminedImages(images=drawn.images, labels=drawn.labels, threat=threat, target=target)


def classify(record: Record) -> Classified:
    """Which images the file classifies correctly, unattacked."""
    examined = record.of(ExaminedImages)
    right = examined.target.judge(examined.natural(), examined.labels)[0] > 0
    count = int(right.sum())
    said = _describe(count, len(right), record.of(Opened).session.classes)
    return Classified(checks=record.check("passed", said), clean=count, attackable=np.flatnonzero(right))


def _describe(right: int, total: int, classes: int) -> str:
    """How many images are classified correctly, and what may be wrong where it is no more than by guessing."""
    found = f"{right} of {total} images are classified correctly"
    if clopper_pearson(right, total, 0.95, "lower")[0] > 1 / classes:
        return found
    return f"{found}, no more than by guessing: are the classes in this order, and --mean and --std right?"
