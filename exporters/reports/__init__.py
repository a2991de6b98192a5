"""What a verification found, as text for other programs: JUnit XML, Markdown for a CI job, an in-toto attestation."""

from __future__ import annotations

from exporters.reports.account import Account, Case, ReportSubject, account_of_error, account_of_verdict, headline
from exporters.reports.attestation import attestation
from exporters.reports.junit import junit
from exporters.reports.markdown import markdown

__all__ = [
    "Account",
    "Case",
    "ReportSubject",
    "account_of_error",
    "account_of_verdict",
    "attestation",
    "headline",
    "junit",
    "markdown",
]
