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


class InputError(CompressError):
    """Base of errors in what was given or asked for; never raised itself."""

    exit_code = USAGE


class OperationError(CompressError):
    """Base of errors in what was begun; never raised itself."""

    exit_code = FAILED


class UsageError(InputError):
    """An option, a value or a combination of options that makes no sense."""


class UnknownNameError(UsageError):
    """A method, model, attack, dataset, recipe or suite that does not exist."""


class MissingInputError(InputError):
    """A file or folder that was named and is not there, or is not of the right kind."""


class MissingDataError(MissingInputError):
    """A dataset that is not on this machine."""


class MissingDeviceError(InputError):
    """A device that was asked for and is absent."""


class MissingPackageError(InputError):
    """An optional package that this command needs."""


class UnreadableCheckpointError(InputError):
    """A checkpoint that is damaged, truncated or not a checkpoint at all."""


class UnsafeCheckpointError(InputError):
    """A checkpoint that would have to run code of unknown origin to be read."""


class UnknownArchitectureError(InputError):
    """A checkpoint whose keys fit no family, or whose tensors do not fit the family."""


class AmbiguousCheckpointError(InputError):
    """A checkpoint whose normalisation or activation could not be settled by measuring."""


class ClassMismatchError(InputError):
    """A model and a dataset that disagree about the classes."""


class UnreadableDataError(InputError):
    """A dataset that is there and cannot be used: empty, damaged, or laid out in another way."""


class RunExistsError(InputError):
    """A run folder that is already there."""


class UnreadableRunError(InputError):
    """A run folder whose results cannot be used: unfinished, not evaluated, or damaged."""


class RecipeChangedError(InputError):
    """A run that was started with another recipe than the one asked for now."""


class DivergedError(OperationError):
    """A loss that became NaN or infinite."""


class WriteError(OperationError):
    """A file that could not be written: disk full, no permission."""


class ExportError(OperationError):
    """An ONNX file that does not compute what the checkpoint computes, or could not be made."""


class UnreadableModelError(CompressError):
    """An ONNX file that is damaged, unsafe or beyond the limits: nothing can be decided about it."""


class UnreadableClaimError(CompressError):
    """A claim that is not one, or is written in a newer schema: nothing can be decided from it."""


class UnreadableEvidenceError(CompressError):
    """An evidence file that is missing, damaged or beyond the limits: nothing can be decided from it."""


class UnreadableSignatureError(CompressError):
    """A signature file that is missing, damaged or of an unknown kind: nothing can be decided from it."""


class UnreadableManifestError(InputError):
    """A manifest that is damaged or of an unknown kind; it is the caller's own."""


class UnsupportedOperatorError(CompressError):
    """An ONNX operator that the differentiable importer does not know."""


class UntrustedGradientsError(CompressError):
    """A file whose imported graph does not compute what onnxruntime does, so that its gradients prove nothing."""


class Interrupted(Exception):  # noqa: N818 - it is a request that was honoured, not an error
    """The user or the scheduler asked us to stop, and the state is saved."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by signal {signum}")
        self.exit_code = 128 + signum
