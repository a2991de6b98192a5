"""Steps 4 to 8 on a set of labelled pictures: the same answers twice, gradients, attacks, alarms and the decision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from compressor.core.errors import UnreadableModelError, UnsupportedOperatorError
from compressor.core.types import Threat
from compressor.numerics.randomness import derive_seed
from compressor.numerics.sampling import random_order
from exporters.claim.evidence import Bytes, Floats, Integers, to_float_array
from exporters.file_attacks.attacks import AttackOutcome, build_attempts, run_attempts
from exporters.file_attacks.gradients import Gradients, open_gradients
from exporters.file_attacks.masked_gradients import AttackedImages, find_masked_gradients
from exporters.file_attacks.random_images import draw_in_ball
from exporters.file_attacks.replay import find_nondeterministic
from exporters.file_attacks.target import Target
from exporters.verification.decision import is_refuted
from exporters.verification.opening import MASKED_GRADIENTS
from exporters.verification.record import MORE_TIME, Record
from exporters.verification.verdict import BrokenImage, Status

DETERMINISM, GRADIENTS, ATTACKS, ALARMS, DECISION = "determinism", "gradients", "attacks", "alarms", "decision"


@dataclass(frozen=True, eq=False)
class ExaminedImages:
    """What a file is tried on.

    Attributes:
        images: uint8 ``[n, C, H, W]``.
        labels: int64 ``[n]``.
        threat: the ball around each.
    """

    images: Bytes
    labels: Integers
    threat: Threat

    def natural(self) -> Floats:
        """The images as the model takes them: float32 ``[n, C, H, W]``."""
        return to_float_array(self.images)


def check_determinism(record: Record, examined: ExaminedImages, target: Target) -> None:
    """Step 4: alone, in shuffled batches and again, the logits are the same."""
    record.begin(DETERMINISM)
    images = find_nondeterministic(examined.natural(), target, record.options.seed)
    if images:
        record.note(
            "undecided",
            f"the logits of {len(images)} images depend on their batch or on the run, image {images[0]} first",
            "The file computes with its batch (a BatchNorm left in training mode) or with random numbers.",
        )
    else:
        record.note("passed", "the same logits alone, in shuffled batches and again")


def check_gradients(
    record: Record, model: onnx.ModelProto, examined: ExaminedImages, known: Floats, target: Target
) -> Gradients | None:
    """Step 5: the gradients of the file, or None where only black-box attacks can be run.

    Args:
        record: gets the check.
        model: the file.
        examined: what is attacked.
        known: float32 ``[m, C, H, W]``: more pictures on which importer and runtime must agree.
        target: the open file.
    """
    record.begin(GRADIENTS)
    status: Status = "skipped" if record.options.accept_black_box else "undecided"
    natural = examined.natural()
    try:
        drawn = draw_in_ball(natural, examined.threat, derive_seed(record.options.seed, "gate"))
        gradients, agreement = open_gradients(target, model, np.concatenate([natural, known]), drawn)
        if gradients is not None:
            undone = "; a softmax at its end is undone" if gradients.is_softmax else ""
            record.note("passed", f"gradients are those of the file, {agreement}{undone}")
            return gradients
        detail = f"the importer does not compute what the file does ({agreement})"
    except (UnsupportedOperatorError, UnreadableModelError) as error:
        detail = error.message.rstrip(".")
    record.note(status, f"{detail}: only black-box attacks can be run", "Verify with --accept-black-box.")
    return None


def run_fresh_attacks(
    record: Record, examined: ExaminedImages, robust_so_far: Integers, target: Target, gradients: Gradients | None
) -> tuple[AttackOutcome, Integers]:
    """Step 6: fresh attacks on the images that are robust so far, or on a random part of them.

    Returns:
        What became of them, and which they were.
    """
    record.begin(ATTACKS)
    options = record.options
    if options.samples is not None and options.samples < len(robust_so_far):
        order = random_order(derive_seed(options.seed, "samples"), len(robust_so_far))
        robust_so_far = np.sort(robust_so_far[order[: options.samples]])
    outcome = run_attempts(
        build_attempts(record.suite, target.session, gradients),
        target,
        to_float_array(examined.images[robust_so_far]),
        examined.labels[robust_so_far],
        examined.threat,
        seed=options.seed,
        on_progress=record.watcher.on_progress,
        deadline=record.deadline,
    )
    record.outcome, record.attacked = outcome, len(robust_so_far)
    record.failures = _broken(examined, target, outcome, robust_so_far)
    successes = ", ".join(f"{name} {count}" for name, count in outcome.counts.items())
    detail = f"{record.suite} broke {int(outcome.broken.sum())} of {len(robust_so_far)} images ({successes})"
    if not outcome.finished:
        # A broken image stays broken: a refutation needs no more attacks.
        if is_refuted(int(outcome.broken.sum()), len(robust_so_far)):
            record.note("undecided", f"{detail}, and {record.out_of_time()}", MORE_TIME)
            return outcome, robust_so_far
        record.settle("undecided", f"{detail}, and {record.out_of_time()}", MORE_TIME)
    record.note("passed", detail)
    return outcome, robust_so_far


def decide_refutation(record: Record, outcome: AttackOutcome) -> None:
    """Step 8: whether more was broken than one image in a hundred."""
    record.step = DECISION
    broken, attacked = int(outcome.broken.sum()), len(outcome.broken)
    if is_refuted(broken, attacked):
        record.settle(
            "failed",
            f"{broken} of {attacked} images claimed robust are broken: more than attack variance explains",
            "The claim was inflated, sealed with weaker attacks, or made of other weights.",
        )
    if broken and not is_refuted(attacked, attacked):
        record.note(
            "undecided",
            f"{broken} of {attacked} broken, and so few images could not refute any claim",
            "More images must be attacked.",
        )
        return
    record.note("passed", f"{broken} of {attacked} broken: within the allowance of one in a hundred")


def raise_alarms(
    record: Record,
    examined: ExaminedImages,
    target: Target,
    gradients: Gradients | None,
    outcome: AttackOutcome,
    chosen: Integers,
) -> None:
    """Step 7: signs that the attacks failed for another reason than that the file is robust."""
    record.begin(ALARMS)
    attacked = AttackedImages(examined.natural(), examined.labels, chosen, outcome, examined.threat)
    findings = find_masked_gradients(target, gradients, attacked, record.options.seed)
    record.alarms = tuple(alarm.detail for alarm in findings.alarms)
    if findings.alarms:
        record.note("undecided", "; ".join(record.alarms), MASKED_GRADIENTS)
    elif gradients is None:
        record.note("passed", "no sign of masked gradients in the answers; the gradients cannot be computed")
    elif findings.one_class:
        record.note("passed", "the file gives every picture the same class, so there is nothing to break")
    else:
        record.note("passed", "no sign of masked gradients")


def _broken(
    examined: ExaminedImages, target: Target, outcome: AttackOutcome, robust_so_far: Integers
) -> tuple[BrokenImage, ...]:
    positions = np.flatnonzero(outcome.broken)
    predicted = target.session(outcome.x_adv[positions]).argmax(axis=1)
    return tuple(
        BrokenImage(
            index=int(robust_so_far[position]),
            label=int(examined.labels[robust_so_far[position]]),
            predicted=int(answer),
            natural=examined.images[robust_so_far[position]],
            adversarial=outcome.x_adv[position],
            attack=outcome.by[int(position)],
        )
        for position, answer in zip(positions, predicted, strict=True)
    )
