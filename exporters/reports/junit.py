"""JUnit XML: one test case for each check and policy, as Jenkins, GitLab and their like read it.

Valid against the schema of Jenkins' xunit plugin (``junit-10.xsd``), where ``time`` is optional. There is none here:
nothing was timed, and equal findings give equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from exporters.reports.account import Account, Case
from exporters.reports.plain import one_line, plain

_SUITE = "compress verify"
_CLASSES = {"check": "compress.verify", "policy": "compress.verify.policy"}
_ELEMENTS = {"failed": "failure", "undecided": "error", "skipped": "skipped"}
_TYPES = {
    ("check", "failed"): "violated",
    ("policy", "failed"): "unmet",
    ("check", "undecided"): "undecided",
    ("policy", "undecided"): "undecided",
}


def junit(account: Account) -> str:
    """The account as a document with one ``testsuite``.

    A violation or an unmet policy is a ``failure``, what could not be decided an ``error``, and a step that was not
    asked for is ``skipped``. So the suite is green exactly where the exit code is 0.

    Args:
        account: what is told.

    Returns:
        XML 1.0 in ASCII characters, ending in a line feed.
    """
    counts = {
        "tests": str(len(account.cases)),
        "failures": str(account.count("failed")),
        "errors": str(account.count("undecided")),
    }
    root = Element("testsuites", {"name": _SUITE, **counts})
    skipped = str(account.count("skipped"))
    suite = SubElement(root, "testsuite", {"name": account.model_name, **counts, "skipped": skipped})
    properties = SubElement(suite, "properties")
    for name, value in _properties(account):
        SubElement(properties, "property", {"name": name, "value": one_line(value)})
    for case in account.cases:
        _add_case(suite, case, account.command)
    indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(root, encoding="us-ascii").decode("ascii")}\n'


def _add_case(suite: Element, case: Case, command: str) -> None:
    names = {"classname": _CLASSES[case.kind], "name": one_line(case.name)}
    element = SubElement(suite, "testcase", names)
    if case.status == "passed":
        SubElement(element, "system-out").text = plain(case.detail)
        return
    attributes = {"message": one_line(case.detail)}
    if (kind := _TYPES.get((case.kind, case.status))) is not None:
        attributes["type"] = kind
    outcome = SubElement(element, _ELEMENTS[case.status], attributes)
    if case.status != "skipped":
        # Some readers show the text alone, others the message alone.
        repeat = f"To repeat: {command}" if command else ""
        outcome.text = plain("\n".join(line for line in (case.detail, case.cause, repeat) if line))


def _properties(account: Account) -> Iterator[tuple[str, str]]:
    yield "verdict", account.answer
    yield "exit-code", str(account.exit_code)
    for name, value in account.subject.policies.items():
        yield f"policy.{name}", value
    verdict = account.verdict
    if verdict is None:
        return
    yield from (("assurance", verdict.assurance), ("suite", verdict.suite), ("seed", str(verdict.seed)))
    counts = {name: getattr(verdict, name) for name in ("samples", "clean", "robust", "attacked", "broken")}
    yield from ((name, str(count)) for name, count in counts.items())
    digests = {"model-sha256": verdict.model_sha256, "evidence-sha256": verdict.evidence_sha256}
    yield from ((name, digest) for name, digest in digests.items() if digest is not None)
