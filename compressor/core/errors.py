"""Every error a user can cause: one class each, one sentence, a way out, and the exit code of the command line.

A message names the thing, then the reason; the hint is the way out. ``docs/reference.md`` lists them.
"""

from __future__ import annotations

from typing import ClassVar

DONE, FAILED, USAGE, UNDECIDED = 0, 1, 2, 3


class CompressError(Exception):
    """An error with a plain sentence, a hint and an exit code; the command line prints it without a traceback."""

    exit_code: ClassVar[int] = UNDECIDED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def code(self) -> str:
        """The class name in kebab case: the stable ``error.code`` of the JSON output."""
        name = type(self).__name__.removesuffix("Error")
        return "".join(f"-{c.lower()}" if c.isupper() else c for c in name).lstrip("-")


class UsageError(CompressError):
    """An option, a value or a combination of options that makes no sense."""

    exit_code = USAGE


class UnknownNameError(UsageError):
    """A method, model, attack, dataset, recipe or suite that does not exist."""


class MissingInputError(CompressError):
    """A file or folder that was named and is not there, or is not of the right kind."""

    exit_code = USAGE


class MissingDataError(MissingInputError):
    """A dataset that is not on this machine."""


class MissingDeviceError(CompressError):
    """A device that was asked for and is absent."""

    exit_code = USAGE


class MissingPackageError(CompressError):
    """An optional package that this command needs."""

    exit_code = USAGE


class UnreadableCheckpointError(CompressError):
    """A checkpoint that is damaged, truncated or not a checkpoint at all."""

    exit_code = USAGE


class UnsafeCheckpointError(CompressError):
    """A checkpoint that would have to run code of unknown origin to be read."""

    exit_code = USAGE


class UnknownArchitectureError(CompressError):
    """A checkpoint whose keys fit no family, or whose tensors do not fit the family."""

    exit_code = USAGE


class AmbiguousCheckpointError(CompressError):
    """A checkpoint whose normalisation or activation could not be settled by measuring."""

    exit_code = USAGE


class ClassMismatchError(CompressError):
    """A model and a dataset that disagree about the classes."""

    exit_code = USAGE


class UnreadableDataError(CompressError):
    """A dataset that is there and cannot be used: empty, damaged, or laid out in another way."""

    exit_code = USAGE


class RunExistsError(CompressError):
    """A run folder that is already there."""

    exit_code = USAGE


class UnreadableRunError(CompressError):
    """A run folder whose results cannot be used: unfinished, not evaluated, or damaged."""

    exit_code = USAGE


class RecipeChangedError(CompressError):
    """A run that was started with another recipe than the one asked for now."""

    exit_code = USAGE


class DivergedError(CompressError):
    """A loss that became NaN or infinite."""

    exit_code = FAILED


class WriteError(CompressError):
    """A file that could not be written: disk full, no permission."""

    exit_code = FAILED


class ExportError(CompressError):
    """An ONNX file that does not compute what the checkpoint computes, or could not be made."""

    exit_code = FAILED


class UnreadableModelError(CompressError):
    """An ONNX file that is damaged, unsafe or beyond the limits: nothing can be decided about it."""


class UnreadableClaimError(CompressError):
    """A claim that is not one, or is written in a newer schema: nothing can be decided from it."""


class UnreadableEvidenceError(CompressError):
    """An evidence file that is missing, damaged or beyond the limits: nothing can be decided from it."""


class UnreadableSignatureError(CompressError):
    """A signature file that is missing, damaged or of an unknown kind: nothing can be decided from it."""


class UnreadableManifestError(CompressError):
    """A manifest that is damaged or of an unknown kind; it is the caller's own."""

    exit_code = USAGE


class UnsupportedOperatorError(CompressError):
    """An ONNX operator that the differentiable importer does not know."""


class UntrustedGradientsError(CompressError):
    """A file whose imported graph does not compute what onnxruntime does, so that its gradients prove nothing."""


class Interrupted(Exception):  # noqa: N818 - it is a request that was honoured, not an error
    """The user or the scheduler asked us to stop, and the state is saved."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by signal {signum}")
        self.exit_code = 128 + signum
