"""The protocol from step 1 to step 8, in order: each step adds a check, and one that settles the answer ends it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from compressor.core.errors import CompressError, Interrupted, UsageError
from compressor.core.reporting import OnProgress
from compressor.core.types import Threat
from compressor.numerics.randomness import derive_seed
from compressor.system.devices import full_float32
from compressor.system.memory import is_out_of_memory
from exporters.claim.claim import Claim
from exporters.claim.evidence import DigestEvidence, Evidence, Integers, to_float_array
from exporters.file_attacks.attacks import build_attempts, run_attempts
from exporters.file_attacks.gradients import Gradients
from exporters.file_attacks.replay import replay
from exporters.file_attacks.suite import REPLAY_SUITE
from exporters.file_attacks.target import Target, open_file_target
from exporters.file_attacks.time_limit import Deadline
from exporters.model_file.preprocessing import Preprocessing
from exporters.model_file.runtime import Provider, Session
from exporters.verification.binding import bind_to_data, open_verifier_data, require_images_of_model
from exporters.verification.decision import is_refuted_by_other_images
from exporters.verification.opening import OpenedModel, check_digests, open_file
from exporters.verification.policies import Policies
from exporters.verification.record import MORE_TIME, CallerInputError, Record, Settled, as_caller_input
from exporters.verification.request import (
    Request,
    VerifierData,
    Watcher,
    fresh_seed,
    refuse_invalid_request,
)
from exporters.verification.trials import (
    ATTACKS,
    ExaminedImages,
    check_determinism,
    check_gradients,
    decide_refutation,
    raise_alarms,
    run_fresh_attacks,
)
from exporters.verification.trust import read_trust
from exporters.verification.unclaimed import examine_unclaimed
from exporters.verification.verdict import MORE_MEMORY, Verdict
from exporters.verification.verifier_data import draw_images

REPLAY, NEW_IMAGES = "replay", "independent data"

_FEWEST_NEW_IMAGES = 256  # fewer let a test of two rates pass for want of power
_INTERNAL = "This program failed on this file; please report it."


@full_float32()
def verify(
    path: Path,
    *,
    evidence: Path | None = None,
    data: VerifierData | None = None,
    suite: str | None = None,
    latest: bool = False,
    seed: int | None = None,
    samples: int | None = None,
    provider: Provider = "cpu",
    threads: int | None = None,
    policies: Policies | None = None,
    accept_black_box: bool = False,
    on_progress: OnProgress | None = None,
    time_limit: float | None = None,
    manifest: Path | None = None,
    public_key: Path | None = None,
    signature: Path | None = None,
    threat: Threat | None = None,
    preprocessing: Preprocessing | None = None,
) -> Verdict:
    """Try to refute what an ONNX file claims of itself; nothing in it, nor beside it, is trusted.

    Args:
        path: the model file.
        evidence: its evidence, where it does not lie beside it.
        data: a dataset that the caller holds: the claim's own binds the evidence to it, another is a fresh test.
        suite: ``replay`` for digests and replay only, or one to run after the verifier's own.
        latest: run the newest version of the verifier's suite rather than the claim's.
        seed: of the fresh attacks; from the operating system where it is None.
        samples: attack a random part of the images that are robust so far, of this size.
        provider: what onnxruntime runs on.
        threads: threads of onnxruntime; all where it is None.
        policies: what is required of the claim besides holding.
        accept_black_box: accept a claim after black-box attacks alone if the file's gradients cannot be computed.
        on_progress: told what is being done.
        time_limit: seconds after which no further step or batch is begun, and what was not proven is undecided.
        manifest: digests of the claim's test split: they bind the evidence to it where the data are not at hand.
        public_key: a PEM file: its owner must have signed the model file.
        signature: the signature file, where it does not lie beside the model.
        threat: of a file that makes no claim: the ball in which it is attacked, on ``data``, and ``policies`` take the
            place of a claim.
        preprocessing: what such a file does not say of the images that it wants.

    Returns:
        A verdict, also where the file or its evidence are damaged, hostile, or make this program fail.

    Raises:
        MissingInputError: there is no such model file, or no evidence file of the name that was given.
        UsageError: an option makes no sense. UnknownNameError, MissingDataError, UnreadableDataError,
            ClassMismatchError, MissingDeviceError: likewise for suite, data and provider.
    """
    request = Request(
        path=path,
        evidence=evidence,
        data=data,
        suite=suite,
        latest=latest,
        seed=fresh_seed() if seed is None else seed,
        samples=samples,
        provider=provider,
        threads=threads,
        policies=policies or Policies(),
        accept_black_box=accept_black_box,
        time_limit=time_limit,
        manifest=manifest,
        public_key=public_key,
        signature=signature,
        threat=threat,
        preprocessing=preprocessing or Preprocessing(),
    )
    return examine(request, Watcher(on_progress))


def examine(request: Request, watcher: Watcher) -> Verdict:
    """Do what was asked in this process; see :func:`verify`."""
    refuse_invalid_request(request)
    trust = read_trust(request.manifest, request.public_key, request.signature)
    return _run(Record(request, Deadline(request.time_limit), trust, watcher))


def _run(record: Record) -> Verdict:
    """Go through the steps; whatever goes wrong on the way, the answer is then undecided at best."""
    try:
        _examine(record)
    except Settled:
        pass
    except CallerInputError as caught:
        raise caught.error from caught
    except Interrupted:
        raise
    except Exception as error:  # the protocol: any internal error is undecided, never 0
        record.note("undecided", *_explained(error))
    return record.verdict()


def _explained(error: Exception) -> tuple[str, str]:
    """What went wrong, in a sentence, and what most likely lies behind it."""
    if is_out_of_memory(error):
        return f"out of memory: {str(error)[:300] or type(error).__name__}", MORE_MEMORY
    if isinstance(error, CompressError):
        return error.message, error.hint
    return f"internal error: {type(error).__name__}: {str(error)[:300]}", _INTERNAL


def _examine(record: Record) -> None:
    opened = open_file(record)
    if opened.makes_claim:
        _examine_claim(record, opened)
    else:
        examine_unclaimed(record, opened)


def _examine_claim(record: Record, opened: OpenedModel) -> None:
    if record.options.threat is not None or record.options.preprocessing != Preprocessing():
        raise CallerInputError(
            UsageError("the file makes a claim, which says under which threat.", "Require one with --require-eps.")
        )
    claim, recorded = check_digests(record, opened)
    evidence = bind_to_data(record, claim, recorded, opened.session)
    target = open_file_target(opened.session, evidence.natural(), opened.model)
    robust_so_far = _replay(record, claim, evidence, target)
    if isinstance(recorded, DigestEvidence):
        record.note("skipped", "the evidence holds no adversarial images: broken images were not replayed", step=REPLAY)
    examined = ExaminedImages(evidence.images, evidence.labels, claim.threat)
    check_determinism(record, examined, target)
    if record.suite == REPLAY_SUITE:
        record.note("skipped", "digests and replay only: no fresh attack was run", step=ATTACKS)
        return
    gradients = check_gradients(record, opened.model, examined, evidence.adversarial()[0], target)
    outcome, chosen = run_fresh_attacks(record, examined, robust_so_far, target, gradients)
    decide_refutation(record, outcome)
    raise_alarms(record, examined, target, gradients, outcome, chosen)
    _try_new_images(record, claim, target, gradients)


def _replay(record: Record, claim: Claim, evidence: Evidence, target: Target) -> Integers:
    """Step 3: the images that are claimed robust and classified correctly here too, so that they can be attacked."""
    record.begin(REPLAY)
    record.tell(0, len(evidence))
    result = replay(evidence, target, claim.threat)
    record.clean = result.clean
    if result.outside:
        record.settle(
            "failed",
            f"{len(result.outside)} adversarial images do not lie in the ball, image {result.outside[0]} first",
            "The evidence was made for another threat, or by hand.",
        )
    differing = len({*result.clean_disagreements, *result.unbroken})
    detail = (
        f"{differing} of {len(evidence)} images came out differently: {len(result.clean_disagreements)} clean, "
        f"{len(result.unbroken)} adversarial"
    )
    if not result.agrees(len(evidence)):
        record.note("undecided", detail, _difference(claim, target.session))
    else:
        record.note("passed", detail)
    record.tell(len(evidence), len(evidence))
    # What another runtime already gets wrong unattacked says nothing of the claim's attacks.
    robust_so_far = np.setdiff1d(np.flatnonzero(evidence.robust), result.clean_disagreements)
    record.robust_so_far = len(robust_so_far)
    return robust_so_far


def _difference(claim: Claim, session: Session) -> str:
    """Why replaying may differ: the runtime settings that are not those of the claim."""
    here = session.describe()
    differing = sorted(name for name in here if claim.runtime.get(name) != here[name])
    if differing:
        return f"The claim was sealed under another runtime: {', '.join(differing)} differ."
    return "The runtime is the claim's own, so the weights or the outcomes are not."


def _try_new_images(record: Record, claim: Claim, target: Target, gradients: Gradients | None) -> None:
    """A dataset that is not the claim's: fresh images, the same attacks, and a test of the two rates."""
    options = record.options
    data = options.data
    if data is None or record.has_claimed_data:
        return
    record.begin(NEW_IMAGES)
    dataset = open_verifier_data(data, target.session, claim.class_names)
    count = options.samples or max(claim.samples, _FEWEST_NEW_IMAGES)
    drawn = as_caller_input(lambda: draw_images(dataset, count))
    require_images_of_model(record, drawn, target.session)
    outcome = run_attempts(
        build_attempts(record.suite, target.session, gradients),
        target,
        to_float_array(drawn.images),
        drawn.labels,
        claim.threat,
        seed=derive_seed(options.seed, NEW_IMAGES),
        on_progress=record.watcher.on_progress,
        deadline=record.deadline,
    )
    robust, total = int((~outcome.broken).sum()), len(drawn.labels)
    detail = f"{robust} of {total} new images are robust, claimed {claim.robust} of {claim.samples}"
    if is_refuted_by_other_images(robust, total, claim.robust, claim.samples):
        record.settle("failed", detail, "The images of the claim are easier than these, or were trained on.")
    if not outcome.finished:
        record.settle("undecided", f"{detail} so far, and {record.out_of_time()}", MORE_TIME)
    record.note("passed", detail)
