"""A file without a claim: the caller's requirements replace the claim, and the caller's data the evidence."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from compressor.core.errors import UsageError
from compressor.core.types import Threat
from compressor.numerics.statistics import clopper_pearson
from exporters.file_attacks.attacks import resolve_suite
from exporters.file_attacks.suite import REPLAY_SUITE, VERIFY_SUITE
from exporters.file_attacks.target import open_file_target
from exporters.model_file.runtime import Session
from exporters.verification.binding import DATA, open_verifier_data, require_images_of_model
from exporters.verification.opening import DIGESTS, NO_CLAIM, OpenedModel
from exporters.verification.record import CallerInputError, Record, as_caller_input
from exporters.verification.request import VerifierData
from exporters.verification.trials import (
    ExaminedImages,
    check_determinism,
    check_gradients,
    raise_alarms,
    run_fresh_attacks,
)
from exporters.verification.verifier_data import EvidenceDraw, draw_images

SAMPLES = 256
"""Test images that are attacked where the caller does not say how many."""

CLEAN = "clean"


def examine_unclaimed(record: Record, opened: OpenedModel) -> None:
    """Steps 4 to 7 on images of the caller's dataset; :meth:`Record.verdict` holds what was found against the policies.

    Raises:
        CallerInputError: too little is said for an answer, or what is said does not fit the file.
    """
    threat, data = _asked(record)
    record.threat, record.suite = threat, resolve_suite(record.options.suite, VERIFY_SUITE)
    drawn = _draw(record, data, opened.session)
    examined = ExaminedImages(drawn.images, drawn.labels, threat)
    target = open_file_target(opened.session, examined.natural(), opened.model)
    record.begin(CLEAN)
    right = target.judge(examined.natural(), drawn.labels)[0] > 0
    record.clean, record.robust_so_far = int(right.sum()), int(right.sum())
    record.note("passed", _describe(record.clean, len(right), opened.session.classes))
    check_determinism(record, examined, target)
    nothing_else = np.zeros((0, *opened.session.image_shape), dtype=np.float32)
    gradients = check_gradients(record, opened.model, examined, nothing_else, target)
    outcome, chosen = run_fresh_attacks(record, examined, np.flatnonzero(right), target, gradients)
    raise_alarms(record, examined, target, gradients, outcome, chosen)


def _asked(record: Record) -> tuple[Threat, VerifierData]:
    """The threat and the data; without either the file was taken for one that makes a claim."""
    options = record.options
    if options.threat is None:
        record.begin(DIGESTS)
        record.settle("undecided", "the file makes no claim", NO_CLAIM)
    if options.data is None:
        raise _usage("the file makes no claim and brings no images.", "Name a dataset that you hold with --data.")
    if options.policies.min_robust_accuracy is None:
        raise _usage(
            "the file makes no claim, and nothing is required of it.",
            "Add --min-robust-accuracy T, or measure it with `compress attack`.",
        )
    if options.evidence is not None:
        raise _usage("the file makes no claim that evidence could be of.", "Leave --evidence-file out.")
    if options.suite == REPLAY_SUITE:
        raise _usage("the file makes no claim, so there is nothing to replay.", "Leave --suite out.")
    return options.threat, options.data


def _usage(message: str, hint: str) -> CallerInputError:
    return CallerInputError(UsageError(message, hint))


def _draw(record: Record, data: VerifierData, session: Session) -> EvidenceDraw:
    record.begin(DATA)
    dataset = open_verifier_data(data, session, None)
    drawn = as_caller_input(lambda: draw_images(dataset, record.options.samples or SAMPLES))
    require_images_of_model(record, drawn, session)
    record.samples, record.bound, record.has_claimed_data = len(drawn.labels), True, True
    record.measured_on = {
        "dataset": drawn.name,
        "digest": drawn.digest,
        "draw": drawn.rule,
        "preprocessing": asdict(record.options.preprocessing),
    }
    record.note(
        "passed", f"{len(drawn.labels)} of the {drawn.total} test images of {drawn.name}, as its digest draws them"
    )
    return drawn


def _describe(right: int, total: int, classes: int) -> str:
    """How many images are classified correctly, and what may be wrong where it is no more than by guessing."""
    found = f"{right} of {total} images are classified correctly"
    if clopper_pearson(right, total, 0.95, "lower")[0] > 1 / classes:
        return found
    return f"{found}, no more than by guessing: are the classes in this order, and --mean and --std right?"
