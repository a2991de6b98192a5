"""Steps on a set of labelled pictures: the same answers twice, gradients, attacks, alarms and the decision."""

from __future__ import annotations

import numpy as np

from compressor.core.errors import UnreadableModelError, UnsupportedOperatorError
from compressor.numerics.randomness import derive_seed
from compressor.numerics.sampling import random_order
from exporters.claim.evidence import Bytes, Integers, to_float_array
from exporters.file_attacks.attacks import AttackedImages, AttackOutcome, build_attempts, run_attempts
from exporters.file_attacks.gradients import open_gradients
from exporters.file_attacks.masked_gradients import find_masked_gradients
from exporters.file_attacks.random_images import draw_in_ball
from exporters.file_attacks.replay import find_nondeterministic
from exporters.verification.decision import is_refuted
from exporters.verification.opening import MASKED_GRADIENTS
from exporters.verification.record import MORE_TIME, Record
from exporters.verification.results import (
    AlarmsRaised,
    Classified,
    ExaminedImages,
    FreshAttacks,
    GradientsOpened,
    Opened,
    Result,
)
from exporters.verification.verdict import BrokenImage, Status

DETERMINISM, GRADIENTS, ATTACKS, ALARMS, DECISION = "determinism", "gradients", "attacks", "alarms", "decision"


def check_determinism(record: Record) -> Result:
    """Alone, in shuffled batches and again, the logits must be the same."""
    examined = record.of(ExaminedImages)
    images = find_nondeterministic(examined.natural(), examined.target, record.request.seed)
    if images:
        return Result(
            checks=record.check(
                "undecided",
                f"the logits of {len(images)} images depend on their batch or on the run, image {images[0]} first",
                "The file computes with its batch (a BatchNorm left in training mode) or with random numbers.",
            )
        )
    return Result(checks=record.check("passed", "the same logits alone, in shuffled batches and again"))


def skip_attacks(record: Record) -> Result:
    """The caller asked for digests and replay only."""
    return record.end("skipped", "digests and replay only: no fresh attack was run")


def check_gradients(record: Record) -> GradientsOpened:
    """The gradients of the file, where the importer computes what the file does."""
    status: Status = "skipped" if record.request.accept_black_box else "undecided"
    examined, model = record.of(ExaminedImages), record.of(Opened).model
    natural, evidence = examined.natural(), examined.evidence
    known = natural[:0] if evidence is None else evidence.adversarial()[0]
    try:
        drawn = draw_in_ball(natural, examined.threat, derive_seed(record.request.seed, GRADIENTS))
        gradients, agreement = open_gradients(examined.target, model, np.concatenate([natural, known]), drawn)
        if gradients is not None:
            undone = "; a softmax at its end is undone" if gradients.is_softmax else ""
            said = f"gradients are those of the file, {agreement}{undone}"
            return GradientsOpened(checks=record.check("passed", said), gradients=gradients)
        detail = f"the importer does not compute what the file does ({agreement})"
    except (UnsupportedOperatorError, UnreadableModelError) as error:
        detail = error.message.rstrip(".")
    checks = record.check(status, f"{detail}: only black-box attacks can be run", "Verify with --accept-black-box.")
    return GradientsOpened(checks=checks, gradients=None)


def run_fresh_attacks(record: Record) -> FreshAttacks:
    """Fresh attacks on the images that can be attacked, or on a random part of them."""
    request, examined = record.request, record.of(ExaminedImages)
    positions = record.of(Classified).attackable
    assert positions is not None  # the step that classified them has not ended the run
    if request.samples is not None and request.samples < len(positions):
        order = random_order(derive_seed(request.seed, "samples"), len(positions))
        positions = np.sort(positions[order[: request.samples]])
    outcome = attack_afresh(record, examined.images[positions], examined.labels[positions], request.seed)
    broken = int(outcome.broken.sum())
    counts = ", ".join(f"{name} {count}" for name, count in outcome.counts.items())
    detail = f"{record.suite} broke {broken} of {len(positions)} images robust so far ({counts})"
    if outcome.finished:
        checks, ends = record.check("passed", detail), False
    else:
        # A broken image stays broken: a refutation needs no more attacks.
        checks = record.check("undecided", f"{detail}, and {record.out_of_time}", MORE_TIME)
        ends = not is_refuted(broken, len(positions))
    failures = _broken(examined, outcome, positions)
    return FreshAttacks(checks=checks, ends=ends, outcome=outcome, positions=positions, failures=failures)


def attack_afresh(record: Record, images: Bytes, labels: Integers, seed: int) -> AttackOutcome:
    """Run the suite on uint8 images ``[m, C, H, W]`` with labels ``[m]``, under the threat that is examined."""
    examined = record.of(ExaminedImages)
    return run_attempts(
        build_attempts(record.suite, examined.target.session, record.of(GradientsOpened).gradients),
        examined.target,
        to_float_array(images),
        labels,
        examined.threat,
        seed=seed,
        on_progress=record.watcher.on_progress,
        deadline=record.deadline,
    )


def decide_refutation(record: Record) -> Result:
    """Whether more was broken than one image in a hundred."""
    outcome = record.of(FreshAttacks).outcome
    broken, attacked = int(outcome.broken.sum()), len(outcome.broken)
    if is_refuted(broken, attacked):
        return record.end(
            "failed",
            f"{broken} of {attacked} images claimed robust are broken: more than attack variance explains",
            "The claim was inflated, sealed with weaker attacks, or made of other weights.",
        )
    if broken and not is_refuted(attacked, attacked):
        return Result(
            checks=record.check(
                "undecided",
                f"{broken} of {attacked} broken, and so few images could not refute any claim",
                "More images must be attacked.",
            )
        )
    return Result(
        checks=record.check("passed", f"{broken} of {attacked} broken: within the allowance of one in a hundred")
    )


def raise_alarms(record: Record) -> AlarmsRaised:
    """Signs that the attacks failed for another reason than that the file is robust."""
    examined, attacks = record.of(ExaminedImages), record.of(FreshAttacks)
    gradients = record.of(GradientsOpened).gradients
    attacked = AttackedImages(examined.natural(), examined.labels, attacks.positions, attacks.outcome, examined.threat)
    findings = find_masked_gradients(examined.target, gradients, attacked, record.request.seed)
    alarms = tuple(alarm.detail for alarm in findings.alarms)
    if alarms:
        checks = record.check("undecided", "; ".join(alarms), MASKED_GRADIENTS)
    elif gradients is None:
        checks = record.check("passed", "no sign of masked gradients in the answers; the gradients cannot be computed")
    elif findings.one_class:
        checks = record.check("passed", "the file gives every picture the same class, so there is nothing to break")
    else:
        checks = record.check("passed", "no sign of masked gradients")
    return AlarmsRaised(checks=checks, alarms=alarms)


def _broken(examined: ExaminedImages, outcome: AttackOutcome, attacked: Integers) -> tuple[BrokenImage, ...]:
    positions = np.flatnonzero(outcome.broken)
    predicted = examined.target.session(outcome.x_adv[positions]).argmax(axis=1)
    return tuple(
        BrokenImage(
            index=int(attacked[position]),
            label=int(examined.labels[attacked[position]]),
            predicted=int(answer),
            natural=examined.images[attacked[position]],
            adversarial=outcome.x_adv[position],
            attack=outcome.by[int(position)],
        )
        for position, answer in zip(positions, predicted, strict=True)
    )
