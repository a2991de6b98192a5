"""Every exception as a code, a sentence, a way out and an exit code: what is printed, and what reports say."""

from __future__ import annotations

from dataclasses import dataclass

import typer

from compressor.core.errors import UNDECIDED, USAGE, CompressError, Interrupted
from compressor.system.memory import is_out_of_memory


@dataclass(frozen=True)
class Failure:
    """How a command ended that did not return.

    Attributes:
        code: the stable ``error.code`` of the JSON output.
        message: one sentence.
        hint: the way out, or nothing.
        exit_code: of the process.
    """

    code: str
    message: str
    hint: str
    exit_code: int


def describe_error(error: BaseException) -> Failure:
    """What to say of ``error``; what nobody foresaw is an internal error."""
    if isinstance(error, CompressError):
        return Failure(error.code, error.message, error.hint, error.exit_code)
    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "compress"
        return Failure("usage", error.format_message(), f"See `{command} --help`.", USAGE)
    if isinstance(error, Interrupted):
        return Failure("interrupted", f"{error}.", "", error.exit_code)
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return Failure("interrupted", "stopped.", "", 130)
    return _unforeseen(error)


def _unforeseen(error: BaseException) -> Failure:
    """What no code of ours raises on purpose."""
    if isinstance(error, ModuleNotFoundError) and (package := _foreign_package(error)):
        # As in the image that only verifies.
        message = f"this command needs {package}, which is not installed."
        hint = "Install robust-compress with all that it depends on; the small image only verifies."
        return Failure("missing-package", message, hint, USAGE)
    if is_out_of_memory(error):
        return Failure("memory", "out of memory.", "Use a smaller --batch-size or fewer --train-samples.", UNDECIDED)
    reason = " ".join(str(error).split())[:300]
    message = f"internal error ({type(error).__name__}: {reason})."
    return Failure("internal", message, "Add --debug to see where.", UNDECIDED)


def _foreign_package(error: ModuleNotFoundError) -> str:
    """The package that is not installed; nothing where a file of our own is missing, which is a mistake of ours."""
    package = (error.name or "").partition(".")[0]
    return "" if package in ("cli", "compressor", "exporters") else package
