"""The file is safe to open, it is signed where that is asked, and model, evidence and claim were sealed together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from compressor.core.errors import (
    MissingDeviceError,
    MissingInputError,
    UnreadableEvidenceError,
    UsageError,
)
from compressor.system.files import sha256_bytes
from exporters.claim.claim import KEY, Claim, ClaimMismatchError, model_bytes, model_digest, read_claim
from exporters.claim.evidence import (
    DigestEvidence,
    Evidence,
    evidence_path,
    find_contradiction,
    parse_evidence,
    read_evidence_bytes,
)
from exporters.differentiable.graph import known_operators
from exporters.file_attacks.attacks import resolve_suite
from exporters.model_file.preprocessing import Preprocessing
from exporters.model_file.runtime import Session, open_session
from exporters.model_file.structure import load_untrusted
from exporters.verification.record import CallerInputError, Record
from exporters.verification.results import (
    Chosen,
    Claimed,
    EvidenceRead,
    FileRead,
    Opened,
    Result,
    Signed,
)
from exporters.verification.verdict import Check

STRUCTURE, DIGESTS, SIGNATURE = "structure", "digests", "signature"
RECORDED_ALARMS = "sealed alarms"
"""Not a step of the protocol: what the exporter says against itself is believed at once."""

NO_CLAIM = (
    "It was exported without one, or not by `compress export`. Say what is required of it: --data, --eps and "
    "--min-robust-accuracy."
)
MASKED_GRADIENTS = "The attacks may have failed because of masked gradients."


def read_file(record: Record) -> FileRead:
    """Read the model file; nothing in it is run before its structure has been checked."""
    with _callers_errors():
        checked = load_untrusted(record.request.model)
    return FileRead(checked=checked, sha256=sha256_bytes(checked.data))


def check_signer(record: Record) -> Result:
    """Where the caller trusts a key, it must have signed this very model file, whose claim names the evidence."""
    from exporters.claim import signing

    key = record.trust.key
    assert key is not None  # the step is done where there is one
    path = record.request.signature_file or signing.signature_path(record.request.model)
    with _callers_errors():
        try:
            signed = signing.check_signature(signing.read_signature(path), key)
        except signing.BadSignatureError as error:
            return record.end(
                "failed", f"{error}", "The file is not from whom it should be, or its signature was swapped."
            )
        except MissingInputError as error:
            return record.end("undecided", error.message, error.hint)
    if not signed.covers(record.of(FileRead).sha256):
        return record.end(
            "failed", "the signature is over other files than this model", "The model was changed after signing."
        )
    return Signed(checks=record.check("passed", f"signed by the key {signing.key_hint(key)[:16]}"), by_the_key=True)


def open_file(record: Record) -> Result:
    """Open a session on the file, whose operators must all be known unless black-box attacks will do."""
    request, file = record.request, record.of(FileRead)
    model, data, findings = file.checked
    # Before anything runs: a few operators can ask for any amount of memory.
    unknown = {node.op_type for node in model.graph.node}.difference(known_operators(), {"Constant"})
    if unknown and not request.accept_black_box:
        return record.end(
            "undecided",
            f"the importer has no operator {min(unknown)[:60]!r}, and the file was not run",
            "Only black-box attacks could be run: verify with --accept-black-box.",
        )
    with _callers_errors():
        session = open_session(
            data, provider=request.provider, threads=request.threads, preprocessing=request.preprocessing
        )
    session.on_run = record.watcher.on_run
    return Opened(
        checks=record.check("passed", "; ".join(finding.detail for finding in findings)),
        model=model,
        sha256=file.sha256,
        session=session,
        is_canonical=model_bytes(model) == data,
        makes_claim=any(entry.key == KEY for entry in model.metadata_props),
    )


@contextmanager
def _callers_errors() -> Iterator[None]:
    """What is missing, or makes no sense for this file, is the caller's own."""
    try:
        yield
    except (MissingInputError, MissingDeviceError, UsageError) as error:
        raise CallerInputError(error) from error


def take_claim(record: Record) -> Result:
    """Read what is claimed."""
    try:
        claim = read_claim(record.of(Opened).model)
    except ClaimMismatchError as error:
        return record.end("failed", f"{error}", "The claim was changed after the export.")
    assert claim is not None  # a file without one takes other steps
    return Claimed(claim=claim)


def refuse_threat(record: Record) -> Result:
    """A file that makes a claim says itself under which threat it is attacked.

    Raises:
        CallersError: the caller says so, too.
    """
    if record.request.eps is not None or record.request.preprocessing != Preprocessing():
        raise CallerInputError(
            UsageError("the file makes a claim, which says under which threat.", "Require one with --require-eps.")
        )
    return Result()


def choose_suite(record: Record) -> Chosen:
    """The verifier's own attacks and those that the caller asks for; a claim cannot choose weaker ones."""
    request = record.request
    return Chosen(suite=resolve_suite(request.suite, record.of(Claimed).claim.suite, latest=request.latest))


def check_model(record: Record) -> Result:
    """The claim must be one of this very model, in the serialisation that the export writes."""
    opened = record.of(Opened)
    if model_digest(opened.model) != record.of(Claimed).claim.model:
        return record.end(
            "failed", "the model is not the one that the claim was made of", "It was changed after export."
        )
    # Protobuf can say one thing in several ways, and a digest of the meaning does not tell them apart.
    if not opened.is_canonical:
        return record.end(
            "undecided",
            "the file is not in the serialisation that the export writes",
            "Another program has saved it again, or its bytes were changed without changing its meaning.",
        )
    return Result()


def read_evidence(record: Record) -> EvidenceRead:
    """The evidence must be the one that the claim was made of."""
    data = _evidence_bytes(record)
    sha256 = sha256_bytes(data)
    if sha256 != record.of(Claimed).claim.evidence:
        checks = record.check(
            "failed", "the evidence is not the one that the claim was made of", "It was changed or swapped."
        )
        return EvidenceRead(checks=checks, ends=True, sha256=sha256)
    try:
        return EvidenceRead(sha256=sha256, evidence=parse_evidence(data))
    except UnreadableEvidenceError as error:
        return EvidenceRead(checks=record.check("undecided", error.message, error.hint), ends=True, sha256=sha256)


def _evidence_bytes(record: Record) -> bytes:
    if record.request.evidence_file is not None:
        return read_evidence_bytes(record.request.evidence_file)
    try:
        return read_evidence_bytes(evidence_path(record.request.model))
    except MissingInputError as error:
        raise UnreadableEvidenceError(error.message, error.hint) from error


def check_evidence(record: Record) -> Result:
    """The evidence must hold what the claim counts; alarms that the export recorded are believed at once."""
    claim, evidence = record.of(Claimed).claim, record.of(EvidenceRead).evidence
    assert evidence is not None  # the step that read it has not ended the run
    if (wrong := _mismatch(claim, evidence, record.of(Opened).session)) is not None:
        return record.end("failed", wrong)
    if len(evidence) == 0:
        return record.end("undecided", "the evidence holds no image, so nothing was shown")
    checks = record.check("passed", "model, evidence and claim are those that were sealed together")
    if claim.alarms:
        said = f"the export itself raised alarms on its attacks: {', '.join(claim.alarms)}"
        checks += (Check(RECORDED_ALARMS, "undecided", said, MASKED_GRADIENTS),)
    return Result(checks=checks)


def _mismatch(claim: Claim, evidence: Evidence | DigestEvidence, session: Session) -> str | None:
    """What the claim, the evidence and the model contradict each other in; None if they agree."""
    counted = (len(evidence), int(evidence.clean.sum()), int(evidence.robust.sum()))
    if counted != (claim.samples, claim.clean_correct, claim.robust):
        images, correct, robust = counted
        return f"the evidence counts {images} images, {correct} correct, {robust} robust, and the claim says otherwise"
    shape = session.image_shape if isinstance(evidence, DigestEvidence) else evidence.images.shape[1:]
    if not shape == session.image_shape == _claimed_shape(claim):
        return "the images of the evidence are not of the size that the model and the claim say"
    if len(claim.class_names) != session.classes:
        return f"the claim names {len(claim.class_names)} classes, the model {session.classes}"
    reason = find_contradiction(evidence, session.classes)
    return None if reason is None else f"the evidence contradicts itself: {reason}"


def _claimed_shape(claim: Claim) -> tuple[int, int, int]:
    size = claim.preprocessing["image_size"]
    return claim.preprocessing["channels"], size, size
