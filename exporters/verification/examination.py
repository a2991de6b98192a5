"""The protocol: its steps in their order, each of which adds a frozen result, until one settles the answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from compressor.core.errors import CompressError, Interrupted
from compressor.numerics.randomness import derive_seed
from compressor.system.devices import full_float32
from compressor.system.memory import is_out_of_memory
from exporters.claim.claim import Claim
from exporters.claim.evidence import DigestEvidence
from exporters.file_attacks.replay import replay
from exporters.file_attacks.suite import REPLAY_SUITE
from exporters.file_attacks.time_limit import Deadline
from exporters.model_file.runtime import Session
from exporters.verification import opening, trials, unclaimed
from exporters.verification.binding import (
    DATA,
    bind_by_dataset,
    bind_by_manifest,
    holds_the_dataset,
    open_verifier_data,
    say_unbound,
    take_evidence,
    why_not_of_model,
)
from exporters.verification.decision import is_refuted_by_other_images
from exporters.verification.record import MORE_TIME, CallerInputError, Record, as_caller_input
from exporters.verification.request import Request, Watcher, refuse_invalid_request
from exporters.verification.results import (
    Claimed,
    Classified,
    EvidenceRead,
    ExaminedImages,
    Opened,
    Result,
)
from exporters.verification.trust import read_trust
from exporters.verification.verdict import MORE_MEMORY, Verdict
from exporters.verification.verifier_data import draw_images

REPLAY, NEW_IMAGES = "replay", "independent data"

_FEWEST_NEW_IMAGES = 256  # fewer let a test of two rates pass for want of power
_INTERNAL = "This program failed on this file; please report it."


@full_float32()
def examine(request: Request, watcher: Watcher) -> Verdict:
    """Try to refute in this process what an ONNX file claims of itself; nothing in it, nor beside it, is trusted.

    Args:
        request: what is asked; it sets no memory limit here.
        watcher: who is told.

    Returns:
        A verdict, also where the file or its evidence are damaged, hostile, or make this program fail.

    Raises:
        MissingInputError: there is no such model file, or no evidence file of the name that was given.
        UsageError: an option makes no sense. UnknownNameError, MissingDataError, UnreadableDataError,
            ClassMismatchError, MissingDeviceError: likewise for suite, data and provider.
        Exception: what the watcher's ``on_progress`` raises ends the verification.
    """
    refuse_invalid_request(request)
    trust = read_trust(request)
    record = Record(request, Deadline(request.time_limit), trust, _as_callers(watcher))
    for step in STEPS:
        record = _take(step, record)
        if record.is_settled:
            break
    return record.verdict()


def _as_callers(watcher: Watcher) -> Watcher:
    """The watcher, whose exceptions are no findings about the file."""
    on_progress = watcher.on_progress
    if on_progress is None:
        return watcher

    def tell(name: str, done: int, total: int) -> None:
        try:
            on_progress(name, done, total)
        except Exception as error:
            raise CallerInputError(error) from error

    return replace(watcher, on_progress=tell)


def _replay(record: Record) -> Classified:
    """Play the recorded outcomes back; images that are robust by the evidence, and correct here, can be attacked."""
    claim, examined = record.of(Claimed).claim, record.of(ExaminedImages)
    evidence, target = examined.evidence, examined.target
    assert evidence is not None  # of a file that makes a claim there is
    record.tell(0, len(evidence))
    result = replay(evidence, target, claim.threat)
    if result.outside:
        checks = record.check(
            "failed",
            f"{len(result.outside)} adversarial images do not lie in the ball, image {result.outside[0]} first",
            "The evidence was made for another threat, or by hand.",
        )
        return Classified(checks=checks, ends=True, clean=result.clean)
    differing = len({*result.clean_disagreements, *result.unbroken})
    detail = (
        f"{differing} of {len(evidence)} images came out differently: {len(result.clean_disagreements)} clean, "
        f"{len(result.unbroken)} adversarial"
    )
    if result.agrees(len(evidence)):
        checks = record.check("passed", detail)
    else:
        checks = record.check("undecided", detail, _difference(claim, target.session))
    if isinstance(record.of(EvidenceRead).evidence, DigestEvidence):
        checks += record.check("skipped", "the evidence holds no adversarial images: broken images were not replayed")
    record.tell(len(evidence), len(evidence))
    # What another runtime already gets wrong unattacked says nothing of the claim's attacks.
    attackable = np.setdiff1d(np.flatnonzero(evidence.robust), result.clean_disagreements)
    return Classified(checks=checks, clean=result.clean, attackable=attackable)


def _difference(claim: Claim, session: Session) -> str:
    """Why replaying may differ: the runtime settings that are not those of the claim."""
    here = session.describe()
    differing = sorted(name for name in here if claim.runtime.get(name) != here[name])
    if differing:
        return f"The claim was sealed under another runtime: {', '.join(differing)} differ."
    return "The runtime is the claim's own, so the weights or the outcomes are not."


def _try_new_images(record: Record) -> Result:
    """A dataset that is not the claim's: fresh images, the same attacks, and a test of the two rates."""
    request, claim, target = record.request, record.of(Claimed).claim, record.of(ExaminedImages).target
    dataset = open_verifier_data(record, claim.class_names)
    count = request.samples or max(claim.samples, _FEWEST_NEW_IMAGES)
    drawn = as_caller_input(lambda: draw_images(dataset, count))
    if (reason := why_not_of_model(drawn, target.session.image_shape)) is not None:
        return record.end("undecided", *reason)
    outcome = trials.attack_afresh(record, drawn.images, drawn.labels, derive_seed(request.seed, NEW_IMAGES))
    robust, total = int((~outcome.broken).sum()), len(drawn.labels)
    detail = f"{robust} of {total} new images are robust, claimed {claim.robust} of {claim.samples}"
    if is_refuted_by_other_images(robust, total, claim.robust, claim.samples):
        return record.end("failed", detail, "The images of the claim are easier than these, or were trained on.")
    if not outcome.finished:
        return record.end("undecided", f"{detail} so far, and {record.out_of_time}", MORE_TIME)
    return Result(checks=record.check("passed", detail))


# The steps.


def _always(record: Record) -> bool:
    return True


def _makes_claim(record: Record) -> bool:
    return record.of(Opened).makes_claim


def _makes_none(record: Record) -> bool:
    return not _makes_claim(record)


def _both(*conditions: Callable[[Record], bool]) -> Callable[[Record], bool]:
    return lambda record: all(condition(record) for condition in conditions)


def _names_data(record: Record) -> bool:
    return record.request.data is not None


def _needs_manifest(record: Record) -> bool:
    return record.trust.manifest is not None and not holds_the_dataset(record)


def _names_nothing(record: Record) -> bool:
    return record.request.data is None and record.trust.manifest is None


@dataclass(frozen=True)
class Step:
    """One step of the protocol.

    Attributes:
        name: of its checks; neighbours of one name are told and timed as one step.
        run: finds something.
        applies: whether there is anything to do.
        is_timed: whether the step is announced, and left out where the time is over.
    """

    name: str
    run: Callable[[Record], Result]
    applies: Callable[[Record], bool] = _always
    is_timed: bool = True


STEPS = (
    Step(opening.STRUCTURE, opening.read_file),
    Step(opening.SIGNATURE, opening.check_signer, lambda record: record.trust.key is not None),
    Step(opening.STRUCTURE, opening.open_file),
    # A claim, and the evidence that it was made of.
    Step(opening.STRUCTURE, opening.refuse_threat, _makes_claim, is_timed=False),
    Step(opening.DIGESTS, opening.take_claim, _makes_claim),
    Step(opening.DIGESTS, opening.choose_suite, _makes_claim),
    Step(opening.DIGESTS, opening.check_model, _makes_claim),
    Step(opening.DIGESTS, opening.read_evidence, _makes_claim),
    Step(opening.DIGESTS, opening.check_evidence, _makes_claim),
    Step(DATA, bind_by_dataset, _both(_makes_claim, _names_data)),
    Step(DATA, bind_by_manifest, _both(_makes_claim, _needs_manifest)),
    Step(DATA, say_unbound, _both(_makes_claim, _names_nothing)),
    Step(DATA, take_evidence, _makes_claim),
    Step(REPLAY, _replay, _makes_claim),
    # Without a claim: what is required of the file, and the caller's images.
    Step(opening.DIGESTS, unclaimed.say_no_claim, _both(_makes_none, lambda record: record.request.eps is None)),
    Step(opening.STRUCTURE, unclaimed.take_requirement, _makes_none, is_timed=False),
    Step(DATA, unclaimed.draw_from_data, _makes_none),
    Step(DATA, unclaimed.take_draw, _makes_none),
    Step(unclaimed.CLEAN, unclaimed.classify, _makes_none),
    # With and without.
    Step(trials.DETERMINISM, trials.check_determinism),
    Step(trials.ATTACKS, trials.skip_attacks, lambda record: record.suite == REPLAY_SUITE, is_timed=False),
    Step(trials.GRADIENTS, trials.check_gradients),
    Step(trials.ATTACKS, trials.run_fresh_attacks),
    # A decision is made of what was attacked in time, also where the time is over.
    Step(trials.DECISION, trials.decide_refutation, _makes_claim, is_timed=False),
    Step(trials.ALARMS, trials.raise_alarms),
    Step(NEW_IMAGES, _try_new_images, lambda record: _names_data(record) and not holds_the_dataset(record)),
)
"""Every step of the protocol, in order."""


def _take(step: Step, record: Record) -> Record:
    """The record after a step; whatever goes wrong in it, the answer is then undecided at best."""
    before = record.step
    try:
        if not step.applies(record):
            return record
        record = record.at(step.name)
        if step.is_timed and step.name != before:
            if record.watcher.on_step is not None:
                record.watcher.on_step(step.name, record.verdict())
            if record.deadline.is_over():
                return record.after(record.end("undecided", f"{record.out_of_time} before this step", MORE_TIME))
        return record.after(step.run(record))
    except CallerInputError as caught:
        raise caught.error from caught
    except Interrupted:
        raise
    except Exception as error:  # the protocol: any internal error is undecided, never 0
        return record.after(record.end("undecided", *_explained(error)))


def _explained(error: Exception) -> tuple[str, str]:
    """What went wrong, in a sentence, and what most likely lies behind it."""
    if is_out_of_memory(error):
        return f"out of memory: {str(error)[:300] or type(error).__name__}", MORE_MEMORY
    if isinstance(error, CompressError):
        return error.message, error.hint
    return f"internal error: {type(error).__name__}: {str(error)[:300]}", _INTERNAL
