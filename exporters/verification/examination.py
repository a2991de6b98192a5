"""The protocol from step 1 to step 8, in order: each step adds a check, and one that settles the answer ends it."""

from __future__ import annotations

import math
import secrets
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, TypeVar

import numpy as np
import onnx

from compressor.contracts import Dataset
from compressor.datasets import open_dataset
from compressor.errors import (
    ClassMismatchError,
    CompressError,
    Interrupted,
    MissingDeviceError,
    MissingInputError,
    UnreadableEvidenceError,
    UnsupportedOperatorError,
    UsageError,
)
from compressor.files import sha256_bytes
from compressor.randomness import derive_seed
from compressor.sampling import random_order
from compressor.suites import get_suite
from compressor.types import DatasetSpec
from exporters.claim import Claim, ClaimMismatchError, model_digest, read_claim, serialise
from exporters.differentiable.registry import known_operators
from exporters.evidence import (
    Evidence,
    Integers,
    contradiction,
    evidence_path,
    parse_evidence,
    read_evidence_bytes,
    to_float,
)
from exporters.runtime import Provider, Session, open_session
from exporters.structure import load_untrusted
from exporters.verification.attacks import (
    REPLAY_SUITE,
    VERIFY_SUITE,
    OnProgress,
    Outcome,
    build_attempts,
    resolve_suite,
    run_attempts,
)
from exporters.verification.blindness import AttackedImages, look_for_blindness
from exporters.verification.decision import is_refuted, is_refuted_by_other_images, robust_estimate
from exporters.verification.draws import draw_inside
from exporters.verification.gradients import Gradients, open_gradients
from exporters.verification.held_data import draw_images, is_the_draw
from exporters.verification.policies import Attacked, Policies, apply_policies
from exporters.verification.replay import replay, unsteady
from exporters.verification.target import Target, open_target
from exporters.verification.time_limit import Deadline
from exporters.verification.verdict import Answer, Assurance, Broken, Check, PolicyResult, Status, Verdict

STRUCTURE, DIGESTS, DATA, REPLAY, DETERMINISM, GATE, ATTACKS, ALARMS, DECISION, NEW_IMAGES = (
    *("structure", "digests", "data", "replay", "determinism", "gate", "attacks", "alarms", "decision"),
    "independent data",
)
CONFESSION = "sealed alarms"
"""Not a step of the protocol: what the exporter says against itself is believed at once."""

_LARGEST_SEED = 2**63
_FEWEST_NEW_IMAGES = 256  # fewer let a test of two rates pass for want of power

T = TypeVar("T")


@dataclass(frozen=True)
class HeldData:
    """The dataset that the verifier holds, opened only when the file has said at which image size.

    Attributes:
        source: an opened dataset, or what ``--data`` names.
        data_dir: where archives are looked for.
        download: whether an absent archive may be fetched.
    """

    source: Dataset | DatasetSpec
    data_dir: Path | None = None
    download: bool = False

    def open(self, image_size: int) -> Dataset:
        """The dataset at ``image_size``."""
        if not isinstance(self.source, DatasetSpec):
            return self.source
        return open_dataset(self.source, data_dir=self.data_dir, download=self.download, image_size=image_size)


@dataclass(frozen=True)
class Options:
    """What the caller chose; see :func:`verify`."""

    path: Path
    evidence: Path | None
    data: HeldData | None
    suite: str | None
    latest: bool
    seed: int
    samples: int | None
    provider: Provider
    threads: int | None
    policies: Policies
    accept_black_box: bool
    on_progress: OnProgress | None
    time_limit: float | None = None


def verify(
    path: Path,
    *,
    evidence: Path | None = None,
    data: HeldData | None = None,
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
) -> Verdict:
    """Try to refute what an ONNX file claims of itself; nothing in it, nor beside it, is trusted.

    Args:
        path: the model file.
        evidence: its evidence, where it does not lie beside it.
        data: a dataset that the caller holds: the claim's own binds the evidence to it, another is a fresh test.
        suite: ``replay`` for digests and replay only, or one to run after the verifier's own.
        latest: run the newest version of the verifier's suite rather than the claim's.
        seed: of the fresh attacks; from the operating system where it is None.
        samples: attack a random part of the standing images, of this size.
        provider: what onnxruntime runs on.
        threads: threads of onnxruntime; all where it is None.
        policies: what is required of the claim besides holding.
        accept_black_box: let a file hold whose gradients cannot be had, by black-box attacks alone.
        on_progress: told what is being done.
        time_limit: seconds after which no further step or batch is begun, and what was not proven is undecided.

    Returns:
        A verdict, also where the file or its evidence are damaged, hostile, or make this program fail.

    Raises:
        MissingInputError: there is no such model file, or no evidence file of the name that was given.
        UsageError: an option makes no sense. UnknownNameError, MissingDataError, UnreadableDataError,
            ClassMismatchError, MissingDeviceError: likewise for suite, data and provider.
    """
    if samples is not None and samples < 1:
        raise UsageError(f"{samples} images cannot be attacked.", "Ask for 1 or more with --samples.")
    if seed is not None and not 0 <= seed < _LARGEST_SEED:
        raise UsageError(f"the seed {seed} is not from 0 to {_LARGEST_SEED - 1}.")
    if time_limit is not None and not 0 < time_limit < math.inf:
        raise UsageError(f"a time limit of {time_limit:g} s makes no sense.", "Give seconds above 0 with --time-limit.")
    if suite not in (None, "verify", VERIFY_SUITE, REPLAY_SUITE):
        get_suite(suite)
    if evidence is not None and not evidence.is_file():
        raise MissingInputError(f"there is no evidence file {evidence}.")
    options = Options(
        path=path,
        evidence=evidence,
        data=data,
        suite=suite,
        latest=latest,
        seed=secrets.randbits(63) if seed is None else seed,
        samples=samples,
        provider=provider,
        threads=threads,
        policies=policies or Policies(),
        accept_black_box=accept_black_box,
        on_progress=on_progress,
        time_limit=time_limit,
    )
    return Examination(options, Deadline(time_limit)).run()


class _Settled(Exception):  # noqa: N818 - not an error: a step has settled the answer
    """The rest of the protocol has nothing to add."""


class _CallersError(Exception):
    """An error of the caller's own input, which is no finding about the file."""

    def __init__(self, error: CompressError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass
class Examination:
    """One run of the protocol: the checks and counts gathered so far."""

    options: Options
    deadline: Deadline
    step: str = STRUCTURE
    checks: list[Check] = field(default_factory=list)
    claim: Claim | None = None
    suite: str = ""
    assurance: Assurance = "self-consistent"
    samples: int = 0
    clean: int = 0
    standing: int | None = None
    attacked: int = 0
    outcome: Outcome | None = None
    alarms: tuple[str, ...] = ()
    failures: tuple[Broken, ...] = ()
    canonical: bool = True
    model_sha256: str | None = None
    evidence_sha256: str | None = None

    def run(self) -> Verdict:
        """Go through the steps; whatever goes wrong on the way, the answer is then undecided at best."""
        try:
            self._examine()
        except _Settled:
            pass
        except _CallersError as caught:
            raise caught.error from caught
        except Interrupted:
            raise
        except CompressError as error:
            self._note("undecided", error.message, error.hint)
        except Exception as error:  # the protocol: any internal error is undecided, never 0
            self._note("undecided", f"internal error: {type(error).__name__}: {str(error)[:300]}", _INTERNAL)
        return self._verdict()

    def _examine(self) -> None:
        model, session = self._open()
        claim, evidence = self._check_digests(model, session)
        self._hear_confession(claim)
        target = open_target(session, evidence.natural())
        self._bind_to_data(claim, evidence, session)
        standing = self._replay(claim, evidence, target)
        self.standing = len(standing)
        self._check_determinism(evidence, target)
        if self.suite == REPLAY_SUITE:
            self._note("skipped", "digests and replay only: no fresh attack was run", step=ATTACKS)
            return
        gradients = self._check_gate(model, claim, evidence, target)
        outcome, chosen = self._attack(claim, evidence, standing, target, gradients)
        self._decide(claim, outcome)
        self._raise_alarms(claim, evidence, target, gradients, outcome, chosen)
        self._try_new_images(claim, target, gradients)

    def _open(self) -> tuple[onnx.ModelProto, Session]:
        options = self.options
        try:
            model, data, findings = load_untrusted(options.path)
            self.model_sha256 = sha256_bytes(data)
            self._refuse_unknown_operators(model)
            session = open_session(data, provider=options.provider, threads=options.threads)
        except (MissingInputError, MissingDeviceError, UsageError) as error:
            raise _CallersError(error) from error
        self.canonical = serialise(model) == data
        self._note("passed", "; ".join(finding.detail for finding in findings))
        return model, session

    def _refuse_unknown_operators(self, model: onnx.ModelProto) -> None:
        """Before anything runs: a few operators can ask for any amount of memory."""
        unknown = {node.op_type for node in model.graph.node}.difference(known_operators(), {"Constant"})
        if unknown and not self.options.accept_black_box:
            self._settle(
                "undecided",
                f"the importer has no operator {min(unknown)[:60]!r}, and the file was not run",
                "Only black-box attacks could be run: verify with --accept-black-box.",
            )

    def _check_digests(self, model: onnx.ModelProto, session: Session) -> tuple[Claim, Evidence]:
        self._begin(DIGESTS)
        try:
            claim = read_claim(model)
        except ClaimMismatchError as error:
            self._settle("failed", f"{error}", "The claim was changed after the export.")
        if claim is None:
            self._settle("undecided", "the file makes no claim", "It was not written by `compress export`.")
        self.claim = claim
        self.suite = resolve_suite(self.options.suite, claim.suite, latest=self.options.latest)
        if model_digest(model) != claim.model:
            self._settle(
                "failed", "the model is not the one that the claim was made of", "It was changed after export."
            )
        # Protobuf can say one thing in several ways, and a digest of the meaning does not tell them apart.
        if not self.canonical:
            self._settle(
                "undecided",
                "the file is not in the serialisation that the export writes",
                "Another program has saved it again, or its bytes were changed without changing its meaning.",
            )
        data = self._read_evidence()
        self.evidence_sha256 = sha256_bytes(data)
        if self.evidence_sha256 != claim.evidence:
            self._settle(
                "failed", "the evidence is not the one that the claim was made of", "It was changed or swapped."
            )
        evidence = parse_evidence(data)
        self._check_counts(claim, evidence, session)
        self._note("passed", "model, evidence and claim are those that were sealed together")
        return claim, evidence

    def _hear_confession(self, claim: Claim) -> None:
        if claim.alarms:
            self._note(
                "undecided",
                f"the export itself found that its attacks may have been blind: {', '.join(claim.alarms)}",
                _BLINDED,
                step=CONFESSION,
            )

    def _read_evidence(self) -> bytes:
        if self.options.evidence is not None:
            return read_evidence_bytes(self.options.evidence)
        try:
            return read_evidence_bytes(evidence_path(self.options.path))
        except MissingInputError as error:
            raise UnreadableEvidenceError(error.message, error.hint) from error

    def _check_counts(self, claim: Claim, evidence: Evidence, session: Session) -> None:
        self.samples = len(evidence)
        counted = (len(evidence), int(evidence.clean.sum()), int(evidence.robust.sum()))
        if counted != (claim.samples, claim.clean_correct, claim.robust):
            self._settle("failed", f"the evidence counts {_counts(counted)}, and the claim says otherwise")
        if not evidence.images.shape[1:] == session.image_shape == _claimed_shape(claim):
            self._settle("failed", "the images of the evidence are not of the size that the model and the claim say")
        if len(claim.class_names) != session.classes:
            self._settle("failed", f"the claim names {len(claim.class_names)} classes, the model {session.classes}")
        reason = contradiction(evidence, session.classes)
        if reason is not None:
            self._settle("failed", f"the evidence contradicts itself: {reason}")
        if len(evidence) == 0:
            self._settle("undecided", "the evidence holds no image, so nothing was shown")

    def _bind_to_data(self, claim: Claim, evidence: Evidence, session: Session) -> None:
        """Where the caller holds the claim's dataset, the evidence must be its draw."""
        self._begin(DATA)
        data = self.options.data
        if data is None:
            self._note("skipped", "no dataset was given: the exporter chose the images")
            return
        dataset = self._held(data, claim, session)
        drawn = _as_caller(lambda: draw_images(dataset, len(evidence)))
        if drawn.digest != claim.dataset["digest"]:
            self._note("skipped", f"{drawn.name} is not the dataset of the claim: it serves as a fresh test")
            return
        if claim.dataset["draw"] != drawn.rule:
            self._settle("undecided", f"this program does not know the draw rule {claim.dataset['draw']!r}")
        if claim.dataset["total"] != drawn.total or not is_the_draw(evidence, drawn):
            self._settle(
                "failed",
                f"the images are not the draw that the digest of {drawn.name} fixes",
                "Whoever exported the file chose the images.",
            )
        self.assurance = "dataset-bound"
        self._note("passed", f"the images are the draw of {drawn.name} that its digest fixes")

    def _held(self, data: HeldData, claim: Claim, session: Session) -> Dataset:
        dataset = _as_caller(lambda: data.open(session.image_shape[1]))
        if len(dataset.class_names) != session.classes:
            raise _CallersError(
                ClassMismatchError(
                    f"the model has {session.classes} classes, and {dataset.name} has {len(dataset.class_names)}.",
                    "Give the data that the model was made for.",
                )
            )
        # A figure on other classes refutes nothing.
        if tuple(dataset.class_names) != claim.class_names:
            raise _CallersError(
                ClassMismatchError(
                    f"{dataset.name} has the classes {_few(dataset.class_names)}, and the claim's are "
                    f"{_few(claim.class_names)}.",
                    "Give data whose classes have the same names in the same order.",
                )
            )
        return dataset

    def _replay(self, claim: Claim, evidence: Evidence, target: Target) -> Integers:
        """The images that are claimed robust and classified correctly here too: those that can be attacked."""
        self._begin(REPLAY)
        self._tell(REPLAY, 0, len(evidence))
        result = replay(evidence, target, claim.threat)
        self.clean = result.clean
        if result.outside:
            self._settle(
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
            self._note("undecided", detail, _difference(claim, target.session))
        else:
            self._note("passed", detail)
        self._tell(REPLAY, len(evidence), len(evidence))
        # What another runtime already gets wrong unattacked says nothing of the claim's attacks.
        return np.setdiff1d(np.flatnonzero(evidence.robust), result.clean_disagreements)

    def _check_determinism(self, evidence: Evidence, target: Target) -> None:
        self._begin(DETERMINISM)
        images = unsteady(evidence, target, self.options.seed)
        if images:
            self._note(
                "undecided",
                f"the logits of {len(images)} images depend on their batch or on the run, image {images[0]} first",
                "The file computes with its batch (a BatchNorm left in training mode) or with random numbers.",
            )
        else:
            self._note("passed", "the same logits alone, in shuffled batches and again")

    def _check_gate(self, model: onnx.ModelProto, claim: Claim, evidence: Evidence, target: Target) -> Gradients | None:
        self._begin(GATE)
        status: Status = "skipped" if self.options.accept_black_box else "undecided"
        natural = evidence.natural()
        try:
            known = np.concatenate([natural, evidence.adversarial()[0]])
            drawn = draw_inside(natural, claim.threat, derive_seed(self.options.seed, GATE))
            gradients, gate = open_gradients(target, model, known, drawn)
            if gradients is not None:
                undone = "; a softmax at its end is undone" if gradients.is_softmax else ""
                self._note(
                    "passed", f"gradients are those of the file, logits to {gate.max_relative_error:.1e}{undone}"
                )
                return gradients
            detail = f"the importer's logits are off by {gate.max_relative_error:.1e} of the logit scale"
        except UnsupportedOperatorError as error:
            detail = error.message
        self._note(status, f"{detail}: only black-box attacks can be run", "Verify with --accept-black-box.")
        return None

    def _attack(
        self, claim: Claim, evidence: Evidence, standing: Integers, target: Target, gradients: Gradients | None
    ) -> tuple[Outcome, Integers]:
        self._begin(ATTACKS)
        options = self.options
        if options.samples is not None and options.samples < len(standing):
            order = random_order(derive_seed(options.seed, "samples"), len(standing))
            standing = np.sort(standing[order[: options.samples]])
        attempts = build_attempts(self.suite, target.session, gradients)
        images, labels = to_float(evidence.images[standing]), evidence.labels[standing]
        outcome = run_attempts(
            attempts,
            target,
            images,
            labels,
            claim.threat,
            seed=options.seed,
            on_progress=options.on_progress,
            deadline=self.deadline,
        )
        self.outcome, self.attacked = outcome, len(standing)
        self.failures = _broken(evidence, target, outcome, standing)
        fell = ", ".join(f"{name} {count}" for name, count in outcome.counts.items())
        detail = f"{self.suite} broke {int(outcome.broken.sum())} of {len(standing)} standing images ({fell})"
        if not outcome.finished:
            # What has fallen stays fallen: a refutation needs no more attacks.
            if is_refuted(int(outcome.broken.sum()), len(standing)):
                self._note("undecided", f"{detail}, and {self._out_of_time()}", _MORE_TIME)
                return outcome, standing
            self._settle("undecided", f"{detail}, and {self._out_of_time()}", _MORE_TIME)
        self._note("passed", detail)
        return outcome, standing

    def _decide(self, claim: Claim, outcome: Outcome) -> None:
        self.step = DECISION
        broken, attacked = int(outcome.broken.sum()), len(outcome.broken)
        if is_refuted(broken, attacked):
            self._settle(
                "failed",
                f"{broken} of {attacked} images claimed robust are broken: more than attack variance explains",
                "The claim was inflated, sealed with weaker attacks, or made of other weights.",
            )
        if broken and not is_refuted(attacked, attacked):
            self._note(
                "undecided",
                f"{broken} of {attacked} broken, and so few images could not refute any claim",
                "More images must be attacked.",
            )
            return
        self._note("passed", f"{broken} of {attacked} broken: within the allowance of one in a hundred")

    def _raise_alarms(
        self,
        claim: Claim,
        evidence: Evidence,
        target: Target,
        gradients: Gradients | None,
        outcome: Outcome,
        chosen: Integers,
    ) -> None:
        self._begin(ALARMS)
        attacked = AttackedImages(evidence.natural(), evidence.labels, chosen, outcome, claim.threat)
        findings = look_for_blindness(target, gradients, attacked, self.options.seed)
        self.alarms = tuple(alarm.detail for alarm in findings.alarms)
        if findings.alarms:
            self._note("undecided", "; ".join(self.alarms), _BLINDED)
        elif gradients is None:
            self._note("passed", "no sign that the attacks were blinded; there are no gradients to watch")
        elif findings.one_class:
            self._note("passed", "the file gives every picture the same class, so there is nothing to break")
        else:
            self._note("passed", "no sign that the attacks were blinded")

    def _try_new_images(self, claim: Claim, target: Target, gradients: Gradients | None) -> None:
        """A dataset that is not the claim's: fresh images, the same attacks, and a test of the two rates."""
        data = self.options.data
        if data is None or self.assurance == "dataset-bound":
            return
        self._begin(NEW_IMAGES)
        dataset = self._held(data, claim, target.session)
        count = self.options.samples or max(claim.samples, _FEWEST_NEW_IMAGES)
        drawn = _as_caller(lambda: draw_images(dataset, count))
        if len(drawn.labels) == 0 or drawn.images.shape[1:] != target.session.image_shape:
            self._settle("undecided", f"{drawn.name} has no test images that the model takes")
        attempts = build_attempts(self.suite, target.session, gradients)
        outcome = run_attempts(
            attempts,
            target,
            to_float(drawn.images),
            drawn.labels,
            claim.threat,
            seed=derive_seed(self.options.seed, NEW_IMAGES),
            on_progress=self.options.on_progress,
            deadline=self.deadline,
        )
        robust, total = int((~outcome.broken).sum()), len(drawn.labels)
        detail = f"{robust} of {total} new images are robust, claimed {claim.robust} of {claim.samples}"
        if is_refuted_by_other_images(robust, total, claim.robust, claim.samples):
            self._settle("failed", detail, "The images of the claim are easier than these, or were trained on.")
        if not outcome.finished:
            self._settle("undecided", f"{detail} so far, and {self._out_of_time()}", _MORE_TIME)
        self._note("passed", detail)

    def _verdict(self) -> Verdict:
        statuses = {check.status for check in self.checks}
        answer: Answer = "violated" if "failed" in statuses else "undecided" if "undecided" in statuses else "holds"
        claim = self.claim
        broken = int(self.outcome.broken.sum()) if self.outcome is not None else 0
        standing = self.standing if self.standing is not None or claim is None else claim.robust
        robust = robust_estimate(standing or 0, broken, self.attacked)
        # Attacks that were cut short give no accuracy that a policy could be held against.
        finished = self.outcome is not None and self.outcome.finished
        measured = None if not finished else Attacked(standing or 0, self.attacked, broken)
        policy: tuple[PolicyResult, ...] = ()
        if claim is not None and self.samples > 0:
            policy = apply_policies(
                self.options.policies,
                claim,
                assurance=self.assurance,
                samples=self.samples,
                clean=self.clean,
                attacked=measured,
            )
        return Verdict(
            answer=answer,
            assurance=self.assurance,
            summary=_summary(answer, fresh=measured is not None, required=bool(policy)),
            samples=self.samples,
            clean=self.clean,
            robust=robust,
            broken=broken,
            attacked=self.attacked,
            attacks=dict(self.outcome.counts) if self.outcome is not None else {},
            alarms=self.alarms,
            checks=tuple(self.checks),
            policy=policy,
            claim=claim.to_json() if claim is not None else None,
            suite=self.suite,
            seed=self.options.seed,
            command=_command(self.options),
            model_sha256=self.model_sha256,
            evidence_sha256=self.evidence_sha256,
            failures=self.failures,
        )

    def _begin(self, step: str) -> None:
        self.step = step
        if self.deadline.is_over():
            self._settle("undecided", f"{self._out_of_time()} before this step", _MORE_TIME)

    def _out_of_time(self) -> str:
        return f"the time limit of {self.options.time_limit:g} s was reached"

    def _note(self, status: Status, detail: str, cause: str = "", *, step: str = "") -> None:
        self.checks.append(Check(step or self.step, status, detail, cause))

    def _settle(self, status: Status, detail: str, cause: str = "") -> NoReturn:
        self._note(status, detail, cause)
        raise _Settled

    def _tell(self, phase: str, done: int, total: int) -> None:
        if self.options.on_progress is not None:
            self.options.on_progress(phase, done, total)


_INTERNAL = "This program failed on this file; please report it."
_MORE_TIME = "Allow more with --time-limit, or attack fewer images with --samples."
_BLINDED = "The file hides its gradients, and the attacks may be blind."


def _as_caller(action: Callable[[], T]) -> T:
    """Do something with the caller's own input: what is wrong with it is not a finding about the file."""
    try:
        return action()
    except CompressError as error:
        raise _CallersError(error) from error


def _broken(evidence: Evidence, target: Target, outcome: Outcome, standing: Integers) -> tuple[Broken, ...]:
    positions = np.flatnonzero(outcome.broken)
    predicted = target.session(outcome.x_adv[positions]).argmax(axis=1)
    return tuple(
        Broken(
            index=int(standing[position]),
            label=int(evidence.labels[standing[position]]),
            predicted=int(answer),
            natural=evidence.images[standing[position]],
            adversarial=outcome.x_adv[position],
            attack=outcome.by[int(position)],
        )
        for position, answer in zip(positions, predicted, strict=True)
    )


def _few(names: Sequence[str]) -> str:
    """The first names, shortened and free of control characters: some come from the file."""
    shown = ["".join(letter for letter in name[:20] if letter.isprintable()) for name in names[:4]]
    return ", ".join(shown) + (", ..." if len(names) > 4 else "")


def _claimed_shape(claim: Claim) -> tuple[int, int, int]:
    size = claim.preprocessing["image_size"]
    return claim.preprocessing["channels"], size, size


def _counts(counted: tuple[int, int, int]) -> str:
    return f"{counted[0]} images, {counted[1]} correct, {counted[2]} robust"


def _difference(claim: Claim, session: Session) -> str:
    """Why replaying may differ: the runtime settings that are not those of the claim."""
    here = session.describe()
    differing = sorted(name for name in here if claim.runtime.get(name) != here[name])
    if differing:
        return f"The claim was sealed under another runtime: {', '.join(differing)} differ."
    return "The runtime is the claim's own, so the weights or the outcomes are not."


def _summary(answer: Answer, *, fresh: bool, required: bool) -> str:
    if answer == "violated":
        return "The claim is violated."
    if answer == "undecided":
        return "It could not be decided whether the claim holds."
    if not fresh:
        return "The files are those that were sealed and they replay as recorded; no fresh attack was run."
    held = "The claim holds: these attacks on these images did not refute it"
    return f"{held}." if required else f"{held}; nothing else was required of it."


def _command(options: Options) -> str:
    """The command line that repeats this run."""
    words = ["compress", "verify", str(options.path), "--seed", str(options.seed)]
    if options.evidence is not None:
        words += ["--evidence-file", str(options.evidence)]
    if options.data is not None and isinstance(options.data.source, DatasetSpec):
        words += ["--data", str(options.data.source)]
    if options.suite is not None:
        words += ["--suite", options.suite]
    if options.samples is not None:
        words += ["--samples", str(options.samples)]
    if options.provider != "cpu":
        words += ["--provider", options.provider]
    words += options.policies.to_arguments()
    flags = {"--latest": options.latest, "--accept-black-box": options.accept_black_box}
    return shlex.join(words + [flag for flag, given in flags.items() if given])
