"""What every report tells, in one form: a verification that ended in a verdict, and one that ended in an error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from exporters.reports.plain import one_line
from exporters.verification.verdict import OF_POLICY, Check, Status, Verdict

CaseKind = Literal["check", "policy"]

RUN = "verification"
"""The one check of a run that ended in an error."""

_NOT_REACHED = "the verification ended before there was a figure to hold it against"


@dataclass(frozen=True)
class Case(Check):
    """A check, or a policy in the form of one, as a test case; the name is unique within its kind."""

    kind: CaseKind = "check"


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

    def count(self, status: Status) -> int:
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
    checks = [Case(**vars(check)) for check in verdict.checks]
    judged = [Case(result.name, OF_POLICY[result.status], result.detail, kind="policy") for result in verdict.policy]
    missing = subject.policies.keys() - {case.name for case in judged}
    unjudged = [case for case in _unjudged(subject) if case.name in missing]
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
    cases = (Case(RUN, "undecided", message, hint), *_unjudged(subject))
    return Account(subject, exit_code, "error", message, cases)


def _unjudged(subject: ReportSubject) -> list[Case]:
    return [Case(name, "undecided", _NOT_REACHED, kind="policy") for name in subject.policies]


def _distinct(cases: Iterable[Case]) -> Iterable[Case]:
    """The cases with a number behind a name that occurs again: readers tell test cases by their names."""
    seen: Counter[str] = Counter()
    for case in cases:
        seen[case.name] += 1
        number = seen[case.name]
        yield case if number == 1 else replace(case, name=f"{case.name} ({number})")
