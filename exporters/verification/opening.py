"""Steps 1 and 2: the file is safe to open, and model, evidence and claim are those that were sealed together."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from compressor.core.errors import MissingDeviceError, MissingInputError, UnreadableEvidenceError, UsageError
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
from exporters.differentiable.registry import known_operators
from exporters.file_attacks.attacks import resolve_suite
from exporters.model_file.runtime import Session, open_session
from exporters.model_file.structure import load_untrusted
from exporters.verification.record import CallerInputError, Record

STRUCTURE, DIGESTS, SIGNATURE = "structure", "digests", "signature"
RECORDED_ALARMS = "sealed alarms"
"""Not a step of the protocol: what the exporter says against itself is believed at once."""

NO_CLAIM = (
    "It was exported without one, or not by `compress export`. Say what is required of it: --data, --eps and "
    "--min-robust-accuracy."
)
MASKED_GRADIENTS = "The attacks may have failed because of masked gradients."


@dataclass(frozen=True, eq=False)
class OpenedModel:
    """A model file that is safe to run.

    Attributes:
        model: its message.
        session: it, open.
        is_canonical: whether its bytes are those that the export writes for this message.
    """

    model: onnx.ModelProto
    session: Session
    is_canonical: bool

    @property
    def makes_claim(self) -> bool:
        """Whether it says anything of its robustness, readable or not."""
        return any(entry.key == KEY for entry in self.model.metadata_props)


def open_file(record: Record) -> OpenedModel:
    """Step 1: nothing in the file is run before its structure has been checked, and whose it is where that matters."""
    record.begin(STRUCTURE)
    options = record.options
    try:
        model, data, findings = load_untrusted(options.path)
        record.model_sha256 = sha256_bytes(data)
        _check_signature(record)
        record.begin(STRUCTURE)
        _refuse_unknown_operators(record, model)
        session = open_session(
            data, provider=options.provider, threads=options.threads, preprocessing=options.preprocessing
        )
    except (MissingInputError, MissingDeviceError, UsageError) as error:
        raise CallerInputError(error) from error
    session.on_run = record.watcher.on_run
    record.note("passed", "; ".join(finding.detail for finding in findings))
    return OpenedModel(model, session, model_bytes(model) == data)


def _refuse_unknown_operators(record: Record, model: onnx.ModelProto) -> None:
    """Before anything runs: a few operators can ask for any amount of memory."""
    unknown = {node.op_type for node in model.graph.node}.difference(known_operators(), {"Constant"})
    if unknown and not record.options.accept_black_box:
        record.settle(
            "undecided",
            f"the importer has no operator {min(unknown)[:60]!r}, and the file was not run",
            "Only black-box attacks could be run: verify with --accept-black-box.",
        )


def check_digests(record: Record, opened: OpenedModel) -> tuple[Claim, Evidence | DigestEvidence]:
    """Step 2: what is claimed, and the evidence that it was claimed of."""
    record.begin(DIGESTS)
    claim = _read_claim(record, opened)
    data = _read_evidence(record)
    record.evidence_sha256 = sha256_bytes(data)
    if record.evidence_sha256 != claim.evidence:
        record.settle("failed", "the evidence is not the one that the claim was made of", "It was changed or swapped.")
    evidence = parse_evidence(data)
    _check_counts(record, claim, evidence, opened.session)
    record.note("passed", "model, evidence and claim are those that were sealed together")
    if claim.alarms:
        record.note(
            "undecided",
            f"the export itself raised alarms on its attacks: {', '.join(claim.alarms)}",
            MASKED_GRADIENTS,
            step=RECORDED_ALARMS,
        )
    return claim, evidence


def _read_claim(record: Record, opened: OpenedModel) -> Claim:
    options = record.options
    try:
        claim = read_claim(opened.model)
    except ClaimMismatchError as error:
        record.settle("failed", f"{error}", "The claim was changed after the export.")
    assert claim is not None  # a file without one takes another way
    record.claim, record.threat = claim, claim.threat
    record.suite = resolve_suite(options.suite, claim.suite, latest=options.latest)
    if model_digest(opened.model) != claim.model:
        record.settle("failed", "the model is not the one that the claim was made of", "It was changed after export.")
    # Protobuf can say one thing in several ways, and a digest of the meaning does not tell them apart.
    if not opened.is_canonical:
        record.settle(
            "undecided",
            "the file is not in the serialisation that the export writes",
            "Another program has saved it again, or its bytes were changed without changing its meaning.",
        )
    return claim


def _read_evidence(record: Record) -> bytes:
    if record.options.evidence is not None:
        return read_evidence_bytes(record.options.evidence)
    try:
        return read_evidence_bytes(evidence_path(record.options.path))
    except MissingInputError as error:
        raise UnreadableEvidenceError(error.message, error.hint) from error


def _check_signature(record: Record) -> None:
    """Where the caller trusts a key, it must have signed this very model file, whose claim names the evidence."""
    trust = record.trust
    if trust.key is None:
        return
    from exporters.claim import signing

    record.begin(SIGNATURE)
    path = trust.signature or signing.signature_path(record.options.path)
    try:
        signed = signing.check_signature(signing.read_signature(path), trust.key)
    except signing.BadSignatureError as error:
        record.settle("failed", f"{error}", "The file is not from whom it should be, or its signature was swapped.")
    except MissingInputError as error:
        record.settle("undecided", error.message, error.hint)
    if record.model_sha256 is None or not signed.covers(record.model_sha256):
        record.settle(
            "failed", "the signature is over other files than this model", "The model was changed after signing."
        )
    record.signed = True
    record.note("passed", f"signed by the key {signing.key_hint(trust.key)[:16]}")


def _check_counts(record: Record, claim: Claim, evidence: Evidence | DigestEvidence, session: Session) -> None:
    record.samples = len(evidence)
    counted = (len(evidence), int(evidence.clean.sum()), int(evidence.robust.sum()))
    if counted != (claim.samples, claim.clean_correct, claim.robust):
        record.settle("failed", f"the evidence counts {_counts(counted)}, and the claim says otherwise")
    shape = session.image_shape if isinstance(evidence, DigestEvidence) else evidence.images.shape[1:]
    if not shape == session.image_shape == _claimed_shape(claim):
        record.settle("failed", "the images of the evidence are not of the size that the model and the claim say")
    if len(claim.class_names) != session.classes:
        record.settle("failed", f"the claim names {len(claim.class_names)} classes, the model {session.classes}")
    reason = find_contradiction(evidence, session.classes)
    if reason is not None:
        record.settle("failed", f"the evidence contradicts itself: {reason}")
    if len(evidence) == 0:
        record.settle("undecided", "the evidence holds no image, so nothing was shown")


def _claimed_shape(claim: Claim) -> tuple[int, int, int]:
    size = claim.preprocessing["image_size"]
    return claim.preprocessing["channels"], size, size


def _counts(counted: tuple[int, int, int]) -> str:
    return f"{counted[0]} images, {counted[1]} correct, {counted[2]} robust"
