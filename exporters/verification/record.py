"""One run of the protocol: what was asked, the checks made so far, and the verdict that they come to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

from compressor.core.errors import CompressError
from compressor.core.types import Threat
from exporters.claim.claim import Claim
from exporters.file_attacks.attacks import AttackOutcome
from exporters.file_attacks.suite import REPLAY_SUITE
from exporters.file_attacks.time_limit import Deadline
from exporters.verification.decision import robust_estimate
from exporters.verification.policies import FreshAttackCounts, apply_policies
from exporters.verification.request import Request, Watcher, command_of
from exporters.verification.trust import Trust
from exporters.verification.verdict import (
    NOT_DECIDED,
    Answer,
    Assurance,
    BrokenImage,
    Check,
    PolicyResult,
    Status,
    Verdict,
)

MORE_TIME = "Allow more with --time-limit, or attack fewer images with --samples."

T = TypeVar("T")


class Settled(Exception):  # noqa: N818 - not an error: a step has settled the answer
    """The rest of the protocol has nothing to add."""


class CallerInputError(Exception):
    """An error of the caller's own input, which is no finding about the file."""

    def __init__(self, error: CompressError) -> None:
        super().__init__(str(error))
        self.error = error


def as_caller_input(action: Callable[[], T]) -> T:
    """Do something with the caller's own input: what is wrong with it is not a finding about the file."""
    try:
        return action()
    except CompressError as error:
        raise CallerInputError(error) from error


@dataclass
class Record:
    """What is known so far; each step adds its checks and what it found.

    Attributes:
        options: what was asked.
        deadline: when to stop.
        trust: what the caller trusts besides this program.
        watcher: who is told.
        step: the step that is being done.
        checks: what the steps found.
        claim: once it could be read.
        threat: the claim's, or of a file without one the caller's.
        suite: the attacks that are run.
        has_claimed_data: whether the data that the caller holds are those of the claim.
        bound: whether the images are a draw of a dataset that the caller holds or has a manifest of.
        signed: whether the file was signed by the caller's key.
        samples: n, the images of the evidence.
        clean: how many of them the file gets right here; None while nobody has looked.
        robust_so_far: how many can be attacked.
        attacked: how many were.
        outcome: of the fresh attacks.
        alarms: signs that they failed because of masked gradients.
        failures: the images that they broke.
        model_sha256: of the model file's bytes.
        evidence_sha256: of the evidence file's bytes.
        measured_on: of a file without a claim, the images and how they were presented.
    """

    options: Request
    deadline: Deadline
    trust: Trust = field(default_factory=Trust)
    watcher: Watcher = field(default_factory=Watcher)
    step: str = ""
    checks: list[Check] = field(default_factory=list)
    claim: Claim | None = None
    threat: Threat | None = None
    suite: str = ""
    has_claimed_data: bool = False
    bound: bool = False
    signed: bool = False
    samples: int = 0
    clean: int | None = None
    robust_so_far: int | None = None
    attacked: int = 0
    outcome: AttackOutcome | None = None
    alarms: tuple[str, ...] = ()
    failures: tuple[BrokenImage, ...] = ()
    model_sha256: str | None = None
    evidence_sha256: str | None = None
    measured_on: dict[str, Any] | None = None

    @property
    def reached(self) -> tuple[Assurance, ...]:
        """The assurance levels that were reached, the highest last: a signature does not bind images to a dataset."""
        levels: dict[Assurance, bool] = {"self-consistent": True, "dataset-bound": self.bound, "signed": self.signed}
        return tuple(level for level, is_reached in levels.items() if is_reached)

    def begin(self, step: str) -> None:
        """Go on to a step, unless the time is over."""
        self.step = step
        if self.watcher.on_step is not None:
            self.watcher.on_step(step, self.verdict())
        if self.deadline.is_over():
            self.settle("undecided", f"{self.out_of_time()} before this step", MORE_TIME)

    def note(self, status: Status, detail: str, cause: str = "", *, step: str = "") -> None:
        """Add a check of this step, or of another one."""
        self.checks.append(Check(step or self.step, status, detail, cause))

    def settle(self, status: Status, detail: str, cause: str = "") -> NoReturn:
        """Add a check that ends the run."""
        self.note(status, detail, cause)
        raise Settled

    def tell(self, done: int, total: int) -> None:
        """Report the progress of this step."""
        if self.watcher.on_progress is not None:
            self.watcher.on_progress(self.step, done, total)

    def out_of_time(self) -> str:
        """That the limit was reached, in words."""
        return f"the time limit of {self.options.time_limit:g} s was reached"

    def verdict(self) -> Verdict:
        """What the checks come to."""
        statuses = {check.status for check in self.checks}
        answer: Answer = "violated" if "failed" in statuses else "undecided" if "undecided" in statuses else "holds"
        claim = self.claim
        broken = int(self.outcome.broken.sum()) if self.outcome is not None else 0
        # Attacks that were cut short give no accuracy that a policy could be held against.
        finished = self.outcome is not None and self.outcome.finished
        measured = None if not finished else FreshAttackCounts(self.robust_so_far or 0, self.attacked, broken)
        policy: tuple[PolicyResult, ...] = ()
        if self.threat is not None and self.samples > 0:
            policy = apply_policies(
                self.options.policies,
                self.threat,
                reached=self.reached,
                samples=self.samples,
                clean=self.clean,
                attacked=measured,
            )
        if claim is None and answer == "holds":
            answer = _meets(policy)
        fresh = measured is not None
        return Verdict(
            answer=answer,
            reached=self.reached,
            summary=_of_requirement(answer) if policy and claim is None else _summary(answer, fresh, bool(policy)),
            samples=self.samples,
            clean=self.clean,
            robust=self._robust(measured),
            broken=broken,
            attacked=self.attacked,
            attacks=dict(self.outcome.counts) if self.outcome is not None else {},
            alarms=self.alarms,
            checks=tuple(self.checks),
            policy=policy,
            claim=claim.to_json() if claim is not None else None,
            threat=self.threat,
            suite=self.suite,
            seed=self.options.seed,
            command=command_of(self.options),
            model_sha256=self.model_sha256,
            evidence_sha256=self.evidence_sha256,
            failures=self.failures,
            measured_on=self.measured_on,
        )

    def _robust(self, measured: FreshAttackCounts | None) -> int | None:
        """How many images are robust: as measured, or in a replay as claimed; None where attacks were not finished."""
        if measured is not None:
            return robust_estimate(measured.robust_so_far, measured.broken, measured.attacked)
        return self.robust_so_far if self.suite == REPLAY_SUITE else None


def _meets(policy: tuple[PolicyResult, ...]) -> Answer:
    """The answer on a file that claims nothing: what is required of it takes the place of a claim."""
    states = {result.status for result in policy}
    return "violated" if "unmet" in states else "undecided" if "undecided" in states or not policy else "holds"


def _of_requirement(answer: Answer) -> str:
    if answer == "holds":
        return "The file claims nothing and meets what is required: these attacks on these images did not refute it."
    if answer == "violated":
        return "The file claims nothing, and it does not meet what is required."
    return "It could not be decided whether the file meets what is required; it claims nothing."


def _summary(answer: Answer, fresh: bool, required: bool) -> str:
    if answer == "violated":
        return "The claim is violated."
    if answer == "undecided":
        return NOT_DECIDED
    if not fresh:
        return "The files are those that were sealed and they replay as recorded; no fresh attack was run."
    held = "The claim holds: these attacks on these images did not refute it"
    return f"{held}." if required else f"{held}; nothing else was required of it."
