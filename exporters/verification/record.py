"""One run of the protocol: frozen results of the steps done so far, and the verdict that they come to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from compressor.core.errors import CompressError
from compressor.core.types import Threat
from exporters.file_attacks.suite import REPLAY_SUITE
from exporters.file_attacks.time_limit import Deadline
from exporters.verification.decision import robust_estimate
from exporters.verification.policies import FreshAttackCounts, apply_policies
from exporters.verification.request import Request, Watcher
from exporters.verification.results import (
    AlarmsRaised,
    Bound,
    Chosen,
    Claimed,
    Classified,
    EvidenceRead,
    FileRead,
    FreshAttacks,
    Opened,
    Result,
    Signed,
)
from exporters.verification.trust import Trust
from exporters.verification.verdict import (
    NOT_DECIDED,
    Answer,
    Assurance,
    Check,
    PolicyResult,
    Status,
    Verdict,
)

if TYPE_CHECKING:
    from exporters.claim.claim import Claim

MORE_TIME = "Allow more with --time-limit, or attack fewer images with --samples."

T = TypeVar("T")


class CallerInputError(Exception):
    """An error of the caller's own input, or what the caller's own function raised: no finding about the file."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def as_caller_input(action: Callable[[], T]) -> T:
    """Do something with the caller's own input: what is wrong with it is not a finding about the file."""
    try:
        return action()
    except CompressError as error:
        raise CallerInputError(error) from error


R = TypeVar("R", bound=Result)


@dataclass(frozen=True, eq=False)
class Record:
    """What is asked, and what the steps so far found.

    Attributes:
        request: what is asked.
        deadline: when to stop.
        trust: what the caller trusts besides this program.
        watcher: who is told.
        step: the step that is being done.
        results: what the steps found, in order.
    """

    request: Request
    deadline: Deadline
    trust: Trust = field(default_factory=Trust)
    watcher: Watcher = field(default_factory=Watcher)
    step: str = ""
    results: tuple[Result, ...] = ()

    def all(self, kind: type[R]) -> tuple[R, ...]:
        """Every result of this kind."""
        return tuple(result for result in self.results if isinstance(result, kind))

    def get(self, kind: type[R]) -> R | None:
        """The last result of this kind; None where no step has brought one."""
        return next(iter(reversed(self.all(kind))), None)

    def of(self, kind: type[R]) -> R:
        """The last result of this kind, which an earlier step must have brought.

        Raises:
            LookupError: none has; the steps are in the wrong order.
        """
        found = self.get(kind)
        if found is None:
            raise LookupError(f"no step has brought {kind.__name__}")
        return found

    def at(self, step: str) -> Record:
        """The same at another step."""
        return replace(self, step=step)

    def after(self, result: Result) -> Record:
        """The same with one more result."""
        kept = (one for one in self.results if not isinstance(one, result.replaces))
        return replace(self, results=(*kept, result))

    @property
    def is_settled(self) -> bool:
        """Whether the answer is settled."""
        return any(result.ends for result in self.results)

    # For the steps.

    def check(self, status: Status, detail: str, cause: str = "") -> tuple[Check, ...]:
        """A check of this step."""
        return (Check(self.step, status, detail, cause),)

    def end(self, status: Status, detail: str, cause: str = "") -> Result:
        """A result that brings nothing but a check, and settles the answer."""
        return Result(checks=self.check(status, detail, cause), ends=True)

    def tell(self, done: int, total: int) -> None:
        """Report the progress of this step."""
        if self.watcher.on_progress is not None:
            self.watcher.on_progress(self.step, done, total)

    @property
    def out_of_time(self) -> str:
        """That the limit was reached, in words."""
        return f"the time limit of {self.request.time_limit:g} s was reached"

    # What the results come to.

    @property
    def claim(self) -> Claim | None:
        """What the file claims, once it could be read."""
        claimed = self.get(Claimed)
        return None if claimed is None else claimed.claim

    @property
    def suite(self) -> str:
        """The attacks that are run, once they are known."""
        chosen = self.get(Chosen)
        return "" if chosen is None else chosen.suite

    @property
    def reached(self) -> tuple[Assurance, ...]:
        """The assurance levels that were reached, the highest last: a signature does not bind images to a dataset."""
        levels: dict[Assurance, bool] = {
            "self-consistent": True,
            "dataset-bound": any(bound.to_a_dataset for bound in self.all(Bound)),
            "signed": any(signed.by_the_key for signed in self.all(Signed)),
        }
        return tuple(level for level, is_reached in levels.items() if is_reached)

    @property
    def checks(self) -> tuple[Check, ...]:
        """What all steps say."""
        return tuple(check for result in self.results for check in result.checks)

    def verdict(self) -> Verdict:
        """What the checks come to."""
        statuses = {check.status for check in self.checks}
        answer: Answer = "violated" if "failed" in statuses else "undecided" if "undecided" in statuses else "holds"
        claim, samples = self.claim, self._samples()
        attacks, classified = self.get(FreshAttacks), self.get(Classified)
        clean = None if classified is None else classified.clean
        broken = 0 if attacks is None else int(attacks.outcome.broken.sum())
        measured = self._measured()
        threat = self._threat()
        policy: tuple[PolicyResult, ...] = ()
        if threat is not None and samples > 0:
            policy = apply_policies(
                self.request, threat, reached=self.reached, samples=samples, clean=clean, attacked=measured
            )
        if claim is None and answer == "holds":
            answer = _meets(policy)
        fresh = measured is not None
        file = self.get(Opened) or self.get(FileRead)
        evidence, alarms = self.get(EvidenceRead), self.get(AlarmsRaised)
        return Verdict(
            answer=answer,
            reached=self.reached,
            summary=_of_requirement(answer) if policy and claim is None else _summary(answer, fresh, bool(policy)),
            samples=samples,
            clean=clean,
            robust=self._robust(measured),
            broken=broken,
            attacked=0 if attacks is None else len(attacks.positions),
            attacks={} if attacks is None else dict(attacks.outcome.counts),
            alarms=() if alarms is None else alarms.alarms,
            checks=self.checks,
            policy=policy,
            claim=None if claim is None else claim.to_json(),
            threat=threat,
            suite=self.suite,
            seed=self.request.seed,
            command=self.request.command(),
            model_sha256=None if file is None else file.sha256,
            evidence_sha256=None if evidence is None else evidence.sha256,
            failures=() if attacks is None else attacks.failures,
            measured_on=next((bound.measured_on for bound in self.all(Bound) if bound.measured_on), None),
        )

    def _samples(self) -> int:
        """The images of the evidence, or those that were drawn for a file without one."""
        read = self.get(EvidenceRead)
        if read is not None and read.evidence is not None:
            return len(read.evidence)
        return next((bound.samples for bound in self.all(Bound) if bound.samples is not None), 0)

    def _threat(self) -> Threat | None:
        if self.claim is not None:
            return self.claim.threat
        chosen = self.get(Chosen)
        return None if chosen is None else chosen.threat

    def _attackable(self) -> int | None:
        classified = self.get(Classified)
        return None if classified is None or classified.attackable is None else len(classified.attackable)

    def _measured(self) -> FreshAttackCounts | None:
        """What the attacks measured: if they were cut short, no accuracy that a policy could be compared with."""
        attacks = self.get(FreshAttacks)
        if attacks is None or not attacks.outcome.finished:
            return None
        return FreshAttackCounts(self._attackable() or 0, len(attacks.positions), int(attacks.outcome.broken.sum()))

    def _robust(self, measured: FreshAttackCounts | None) -> int | None:
        """How many images are robust: as measured, or in a replay as claimed; None if attacks were not finished."""
        if measured is not None:
            return robust_estimate(measured.robust_so_far, measured.broken, measured.attacked)
        return self._attackable() if self.suite == REPLAY_SUITE else None


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
