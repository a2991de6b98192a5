"""Markdown for the summary of a CI job: verdict, figures, checks, policies, how to repeat it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from compressor.numerics.statistics import clopper_pearson
from exporters.reports.account import Account, Case
from exporters.reports.plain import one_line

_MARKS = {"passed": "ok", "failed": "**FAILED**", "undecided": "**UNDECIDED**", "skipped": "skipped"}
_POLICY_MARKS = {"passed": "met", "failed": "**UNMET**", "undecided": "**UNDECIDED**"}
_SPECIAL = re.compile(r"([\\`*_\[\]<>|~:@#&!$])")


def markdown(account: Account) -> str:
    """The account as GitHub-flavoured Markdown.

    Whatever a file or a caller wrote is escaped: it makes no heading, link, mention, formula or HTML. Intervals are
    two-sided 95 % Clopper-Pearson, computed here from counts.

    Args:
        account: what is told.

    Returns:
        Markdown that ends in a line feed; equal accounts give equal text.
    """
    return "\n".join(_lines(account)) + "\n"


def _lines(account: Account) -> Iterator[str]:
    yield from (f"## {_text(account.model_name)}: {account.headline.upper()}", "")
    yield from (f"{_text(account.summary)} Exit code {account.exit_code}.", "")
    yield from _figures(account)
    checks = [case for case in account.cases if case.kind == "check"]
    yield from _table(("check", "result", "what was found"), [_row(case, _MARKS) for case in checks])
    policies = [case for case in account.cases if case.kind == "policy"]
    if policies:
        yield from _table(("policy", "result", "what was found"), [_row(case, _POLICY_MARKS) for case in policies])
    elif account.answer == "holds":
        yield from ("No policy was set: nothing was required of the claim besides that it holds.", "")
    if account.command:
        # A fence longer than any run of backticks in the command cannot be closed by it.
        command = one_line(account.command)
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", command)), default=0))
        yield from ("To repeat it, with the same seed:", "", f"{fence}sh", command, fence)


def _figures(account: Account) -> Iterator[str]:
    verdict = account.verdict
    if verdict is None or not verdict.samples:
        return
    threat = f"{verdict.threat.norm}, eps = {verdict.threat.eps}" if verdict.threat else "threat unknown"
    figures = {"clean": verdict.clean, f"attacked ({_text(threat)})": verdict.robust}
    rows = [(name, *_share(count, verdict.samples)) for name, count in figures.items() if count is not None]
    if not rows:
        return
    yield from _table(("accuracy", "of the images", "95 % interval of the population"), rows)
    if verdict.robust is None:
        return
    yield (
        f"Fresh attacks ({_text(verdict.suite)}, seed {verdict.seed}) broke {verdict.broken} of {verdict.attacked} "
        f"{'images that were claimed robust' if verdict.claim else 'correct images'}; assurance {verdict.assurance}."
        if verdict.attacked
        else f"No fresh attack was run: the attacked accuracy is the claim's own; assurance {verdict.assurance}."
    )
    yield ""


def _share(count: int, n: int) -> tuple[str, str]:
    low, high = clopper_pearson(count, n)
    return f"{100 * count / n:.1f} % ({count} of {n})", f"{100 * low:.1f} to {100 * high:.1f} %"


def _row(case: Case, marks: dict[str, str]) -> tuple[str, str, str]:
    found = f"{_text(case.detail)}<br>{_text(case.cause)}" if case.cause else _text(case.detail)
    return _text(case.name), marks[case.status], found


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""


def _text(text: str) -> str:
    """``text`` on one line, with no meaning in Markdown."""
    return _SPECIAL.sub(r"\\\1", one_line(text))
