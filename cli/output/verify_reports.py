"""``--junit``, ``--summary`` and ``--attestation`` of ``compress verify``: written on every exit, whatever happens.

First each report says that the verification did not finish; the verdict, or the error, replaces that. So neither a
process that is killed nor a report left over from yesterday can pass for an answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cli.output.console import Output
from cli.output.failure import Failure, describe_error
from compressor.core.errors import UNDECIDED, CompressError, UsageError, WriteError
from compressor.system.files import write_text
from exporters.reports.account import Account, ReportSubject, account_of_error, account_of_verdict
from exporters.reports.attestation import attestation
from exporters.reports.junit import junit
from exporters.reports.markdown import markdown

if TYPE_CHECKING:
    from exporters.verification.policies import Policies
    from exporters.verification.verdict import Verdict

JUNIT, SUMMARY, ATTESTATION = "--junit", "--summary", "--attestation"

_RENDER = {JUNIT: junit, SUMMARY: markdown, ATTESTATION: attestation}
# A report in the place of one of these is a slip of the command line, and an expensive one.
_PRECIOUS = frozenset({".onnx", ".npz", ".safetensors", ".pt", ".pth", ".sig", ".pem", ".pub"})
_UNFINISHED = Failure("", "the verification did not finish: it is still running, or it was killed.", "", UNDECIDED)


@dataclass
class Reports:
    """The reports that were asked for.

    Attributes:
        paths: option to file.
        subject: what is verified.
        output: where it is said that one could not be written.
        unwritten: option to reason, for those that are not what they should be.
    """

    paths: dict[str, Path]
    subject: ReportSubject
    output: Output
    unwritten: dict[str, str] = field(default_factory=dict)

    def require(self, policies: Policies) -> None:
        """From here on the reports know what is required."""
        self.subject = replace(self.subject, policies=policies.required())

    def tell_verdict(self, verdict: Verdict) -> None:
        """Write what was found."""
        self._write(account_of_verdict(verdict, self.subject))
        for option, path in self.paths.items():
            if option not in self.unwritten:
                self.output.note(f"{option}: {path}")

    def tell_failure(self, failure: Failure) -> None:
        """Write what went wrong."""
        self._write(account_of_error(failure.message, failure.hint, failure.exit_code, self.subject))

    def begin(self) -> None:
        """Say that there is no answer yet; a file that cannot be written is known before the work, not after it.

        Raises:
            UsageError: a report would replace a model, its evidence or another report. That one is not written.
        """
        refused = self._take_out_misplaced()
        self.tell_failure(_UNFINISHED)
        if refused is not None:
            raise refused

    def _take_out_misplaced(self) -> UsageError | None:
        error = None
        taken = {path.resolve() for path in (self.subject.model, self.subject.evidence)}
        for option, path in list(self.paths.items()):
            if path.resolve() in taken or path.suffix.lower() in _PRECIOUS:
                del self.paths[option]
                error = UsageError(f"{option} would replace {path}.", "Name a file of its own for each report.")
            taken.add(path.resolve())
        return error

    def _write(self, account: Account) -> None:
        known = set(self.unwritten)
        self.unwritten.clear()
        for option, path in self.paths.items():
            text = _RENDER[option](account)
            target = path.resolve()  # a link stays a link
            try:
                if text is None:
                    _remove(target)
                else:
                    write_text(target, text)
            except WriteError as error:
                self.unwritten[option] = error.message
                if option not in known:
                    self.output.warn(f"{option}: {error.message}")


def subject_of(model: Path, evidence: Path | None) -> ReportSubject:
    """What is asked for, before anything was looked at: any path will do."""
    return ReportSubject(model, evidence or model.parent / f"{model.stem}.evidence.npz", {})


@contextmanager
def reporting(paths: dict[str, Path | None], subject: ReportSubject, output: Output) -> Iterator[Reports]:
    """Reports that are written however the block ends; the exit code stays that of the block.

    Args:
        paths: option to file, None where it was not asked for.
        subject: what is verified.
        output: for warnings.

    Raises:
        UsageError: see :meth:`Reports.begin`.
    """
    reports = Reports({option: path for option, path in paths.items() if path is not None}, subject, output)
    try:
        reports.begin()
        yield reports
    except BrokenPipeError:
        raise  # the reader of stdout has gone; what was found is still true
    except BaseException as error:
        reports.tell_failure(describe_error(error))
        raise


def report_wrong_usage(arguments: Sequence[str], failure: Failure) -> None:
    """Write the reports of a command line that could not be parsed, as far as it can be told what they are.

    Args:
        arguments: all words, the command first.
        failure: what is wrong with them.
    """
    paths: dict[str, Path] = {}
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        option, equals, value = word.partition("=")
        given = value if equals else following
        if option in _RENDER and given and not given.startswith("-"):
            paths[option] = Path(given)
    models = [Path(word) for word in arguments if word.endswith(".onnx")]
    reports = Reports(paths, subject_of(models[0] if models else Path("model.onnx"), None), Output(quiet=True))
    with suppress(UsageError):  # one error is told already
        reports.begin()
    reports.tell_failure(failure)


def write_images(verdict: Verdict, folder: Path, reports: Reports, output: Output) -> None:
    """``--failures``: like the reports, it never changes the exit code."""
    from exporters.verification.failures import write_failures

    try:
        written = write_failures(verdict, folder)
    except CompressError as error:
        reports.unwritten["--failures"] = error.message
        output.warn(f"--failures: {error.message}")
    else:
        count = len(written) // 2
        output.note(f"--failures: {folder}, broken images: {count}" if count else "--failures: no image was broken")


def _remove(path: Path) -> None:
    """Remove what an earlier run left: an attestation must not outlive the file that it speaks of."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(f"cannot remove {path}: {error.strerror or error}.") from error
