"""An in-toto attestation of the test's result, unsigned: what a signer wraps and an admission controller reads.

Statement v1 with the predicate ``test-result/v0.1`` (github.com/in-toto/attestation, spec/predicates/test-result.md).
"""

from __future__ import annotations

from typing import Any, Literal

from compressor.system.files import canonical_json, sha256_bytes
from compressor.version import __version__
from exporters.reports.account import Account, Case
from exporters.reports.plain import one_line

STATEMENT = "https://in-toto.io/Statement/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"

Result = Literal["PASSED", "WARNED", "FAILED"]

# Without these steps a claim can hold that no attack, or no attack with gradients, was tried on.
_MISSED = frozenset({"attacks", "gradients"})


def attestation(account: Account) -> str | None:
    """The account as one canonical JSON object, without clock or path: equal findings give equal bytes.

    ``PASSED`` and ``WARNED`` both mean exit code 0; ``WARNED`` where the attacks, or their gradients, were left out.
    Anything else is ``FAILED``, what could not be decided too: most readers let a warning pass.

    Args:
        account: what is told.

    Returns:
        JSON that ends in a line feed; None where no model file was read, since there is nothing to speak of then.
    """
    verdict = account.verdict
    if verdict is None or verdict.model_sha256 is None:
        return None
    passed = [_name(case) for case in account.cases if case.status == "passed"]
    warned = [_name(case) for case in account.cases if _is_warning(case)]
    failed = [_name(case) for case in account.cases if case.status in ("failed", "undecided")]
    result: Result = "FAILED" if account.exit_code else "WARNED" if warned else "PASSED"
    subject = {
        "name": account.model_name,
        "digest": {"sha256": verdict.model_sha256},
        "annotations": {
            "verdict": account.answer,
            "exitCode": account.exit_code,
            "assurance": verdict.assurance,
            "samples": verdict.samples,
            "clean": verdict.clean,
            "robust": verdict.robust,
            "attacked": verdict.attacked,
            "broken": verdict.broken,
        },
    }
    statement = {
        "_type": STATEMENT,
        "subject": [subject],
        "predicateType": TEST_RESULT,
        "predicate": {
            "result": result,
            "configuration": _configuration(account),
            "passedTests": passed,
            "warnedTests": warned,
            "failedTests": failed,
        },
    }
    return canonical_json(statement) + "\n"


def _configuration(account: Account) -> list[dict[str, Any]]:
    verdict = account.verdict
    if verdict is None:
        return []
    settings = {
        "compress": __version__,
        "suite": verdict.suite,
        "seed": str(verdict.seed),  # a JSON number of this size loses digits in many readers
        "policies": {name: one_line(value) for name, value in account.subject.policies.items()},
        "threat": str(verdict.threat) if verdict.threat else None,
        "measuredOn": verdict.measured_on,
    }
    described: list[dict[str, Any]] = [
        {
            "name": "settings",
            "digest": {"sha256": sha256_bytes(canonical_json(settings).encode())},
            "annotations": settings,
        }
    ]
    if verdict.evidence_sha256 is not None:
        described.insert(0, {"name": account.evidence_name, "digest": {"sha256": verdict.evidence_sha256}})
    return described


def _is_warning(case: Case) -> bool:
    return case.kind == "check" and case.status == "skipped" and case.name in _MISSED


def _name(case: Case) -> str:
    return one_line(case.name if case.kind == "check" else f"policy {case.name}")
