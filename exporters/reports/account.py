"""What every report tells, in one form: a verification that ended in a verdict, and one that ended in an error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from exporters.reports.plain import one_line

if TYPE_CHECKING:
    from exporters.verification.verdict import Verdict

CaseKind = Literal["check", "policy"]
CaseStatus = Literal["passed", "failed", "undecided", "skipped"]

RUN = "verification"
"""The one check of a run that ended in an error."""

_NOT_REACHED = "the verification ended before there was a figure to hold it against"
_OF_POLICY: Mapping[str, CaseStatus] = {"met": "passed", "unmet": "failed", "undecided": "undecided"}


@dataclass(frozen=True)
class Case:
    """One check or policy, as a test case.

    Attributes:
        kind: ``check`` for a step of the protocol, ``policy`` for a requirement of the caller's.
        name: unique within its kind.
        status: ``failed`` for a violation or an unmet policy, ``undecided`` for what could not be decided.
        detail: what was found.
        cause: what most likely lies behind it.
    """

    kind: CaseKind
    name: str
    status: CaseStatus
    detail: str
    cause: str = ""


@dataclass(frozen=True)
class ReportSubject:
    """What was asked for.

    Attributes:
        model: the model file as it was named; only its last part is ever reported, but for the command.
        evidence: the evidence file, likewise.
        policies: what is required, name to value.
    """

    model: Path
    evidence: Path
    policies: Mapping[str, str]


@dataclass(frozen=True)
class Account:
    """A finished run, whichever way it ended.

    Attributes:
        subject: what was asked for.
        exit_code: of the command.
        answer: ``holds``, ``violated``, ``undecided``, or ``error`` where there is no verdict.
        summary: one sentence.
        cases: at least one, in the order of the protocol, policies last.
        command: repeats the run; empty where it is not known.
        verdict: None after an error.
    """

    subject: ReportSubject
    exit_code: int
    answer: str
    summary: str
    cases: tuple[Case, ...]
    command: str = ""
    verdict: Verdict | None = None

    @property
    def model_name(self) -> str:
        """The name of the model file, without its folder."""
        return one_line(self.subject.model.name) or "model"

    @property
    def evidence_name(self) -> str:
        """The name of the evidence file, without its folder."""
        return one_line(self.subject.evidence.name) or "evidence"

    @property
    def headline(self) -> str:
        """The answer, and that a policy keeps it from being a green one where that is so."""
        return headline(self.answer, self.exit_code, unmet=self.count("failed") > 0)

    def count(self, status: CaseStatus) -> int:
        """How many cases have this status."""
        return sum(case.status == status for case in self.cases)


def headline(answer: str, exit_code: int, *, unmet: bool) -> str:
    """The answer, and that a policy keeps it from being a green one where that is so.

    Args:
        answer: of the verdict.
        exit_code: of the command.
        unmet: whether a policy is unmet.
    """
    if answer != "holds" or not exit_code:
        return answer
    return f"{answer}, but a policy is {'unmet' if unmet else 'undecided'}"


def account_of_verdict(verdict: Verdict, subject: ReportSubject) -> Account:
    """The account of a verification that reached an answer.

    A policy that was asked for and never judged, because the verification ended before, is undecided: a report must
    not look as if it had not been asked for.

    Args:
        verdict: the answer.
        subject: what was asked for.
    """
    checks = [Case("check", check.name, check.status, check.detail, check.cause) for check in verdict.checks]
    judged = [Case("policy", result.name, _OF_POLICY[result.status], result.detail) for result in verdict.policy]
    missing = [*subject.policies.keys() - {case.name for case in judged}]
    unjudged = [Case("policy", name, "undecided", _NOT_REACHED) for name in subject.policies if name in missing]
    return Account(
        subject=subject,
        exit_code=verdict.exit_code,
        answer=verdict.answer,
        summary=verdict.summary,
        cases=(*_distinct(checks), *_distinct([*judged, *unjudged])),
        command=verdict.command,
        verdict=verdict,
    )


def account_of_error(message: str, hint: str, exit_code: int, subject: ReportSubject) -> Account:
    """The account of a run that ended without a verdict.

    Args:
        message: what went wrong, in a sentence.
        hint: the way out, or nothing.
        exit_code: of the command.
        subject: what was asked for.
    """
    policies = [Case("policy", name, "undecided", _NOT_REACHED) for name in subject.policies]
    cases = (Case("check", RUN, "undecided", message, hint), *policies)
    return Account(subject, exit_code, "error", message, cases)


def _distinct(cases: Iterable[Case]) -> Iterable[Case]:
    """The cases with a number behind a name that occurs again: readers tell test cases by their names."""
    seen: Counter[str] = Counter()
    for case in cases:
        seen[case.name] += 1
        number = seen[case.name]
        yield case if number == 1 else Case(case.kind, f"{case.name} ({number})", case.status, case.detail, case.cause)
