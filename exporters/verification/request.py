"""What the caller asks of one verification, as one value; its command line and its JSON derive from the fields."""

from __future__ import annotations

import math
import secrets
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from compressor.core.contracts import Dataset
from compressor.core.errors import MissingInputError, UsageError
from compressor.core.reporting import OnProgress
from compressor.core.types import DatasetSpec, Norm, Threat
from compressor.evaluation.suites import get_suite
from exporters.file_attacks.suite import REPLAY_SUITE, VERIFY_SUITE
from exporters.model_file.preprocessing import Preprocessing, parse_normalization
from exporters.verification.given_images import GivenImages
from exporters.verification.policies import Policies

if TYPE_CHECKING:
    from exporters.verification.verdict import Verdict

_SEED_BITS = 63
_LEFT_OUT: dict[str, bool] = {"repeat": False}


def fresh_seed() -> int:
    """A seed from the operating system, which no file can foresee."""
    return secrets.randbits(_SEED_BITS)


@dataclass(frozen=True)
class Request(Policies):
    """What the caller chose, and what is required besides that the claim holds.

    Each field is an option of ``compress verify`` and an argument of :func:`exporters.api.verify.verify`, which says
    what it means. The words of :meth:`command` are in the order of the fields, policies last. Fields marked with
    ``repeat=False`` change how long a verification may take and how much memory, and not what it finds.
    """

    model: Path
    seed: int = field(default_factory=fresh_seed)
    data: DatasetSpec | Dataset | GivenImages | None = None
    evidence_file: Path | None = None
    data_dir: Path | None = None
    manifest: Path | None = None
    public_key: Path | None = None
    signature_file: Path | None = None
    suite: str | None = None
    samples: int | None = None
    provider: Literal["cpu", "cuda"] = "cpu"
    eps: str | None = None
    norm: Norm | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    image_size: int | None = None
    latest: bool = False
    accept_black_box: bool = False
    download: bool = field(default=False, metadata=_LEFT_OUT)
    threads: int | None = field(default=None, metadata=_LEFT_OUT)
    time_limit: float | None = field(default=None, metadata=_LEFT_OUT)
    memory_limit: int | None = field(default=None, metadata=_LEFT_OUT)

    @property
    def threat(self) -> Threat | None:
        """The ball in which a file without a claim is attacked."""
        return None if self.eps is None else Threat(self.norm or "Linf", self.eps)

    @property
    def preprocessing(self) -> Preprocessing:
        """What a file without a claim does not say of the images that it wants."""
        return Preprocessing(parse_normalization(self.mean, self.std), self.image_size)

    def open_data(self, image_size: int, class_names: tuple[str, ...]) -> Dataset:
        """The caller's images; a dataset that was named is opened at this size.

        Args:
            image_size: of the model, in pixels.
            class_names: of the model, for images that come without names.
        """
        if isinstance(self.data, DatasetSpec):
            from compressor.data.datasets import open_dataset

            return open_dataset(self.data, data_dir=self.data_dir, download=self.download, image_size=image_size)
        if isinstance(self.data, GivenImages):
            return self.data.as_dataset(class_names)
        assert self.data is not None  # asked only where there is one
        return self.data

    def command(self) -> str:
        """The command line that repeats this verification."""
        words = ["compress", "verify", str(self.model)]
        policies = fields(Policies)
        own = [one for one in fields(self) if one not in policies]
        for one in (*own, *policies):
            value = getattr(self, one.name)
            is_said = one.name != "model" and one.metadata.get("repeat", True) and value != one.default
            # Images in memory have no name on a command line.
            if is_said and (one.name != "data" or isinstance(value, DatasetSpec)):
                option = f"--{one.name.replace('_', '-')}"
                words += [option] if value is True else [option, _word(value)]
        return shlex.join(words)


def _word(value: Any) -> str:
    return ",".join(map(repr, value)) if isinstance(value, tuple) else str(value)


@dataclass(frozen=True)
class Watcher:
    """Who is told how a verification goes on.

    Attributes:
        on_progress: what is being done, and how much of it.
        on_step: before each step, its name and what the verdict would be without all that follows.
        on_run: every run of the file: between two of them, it alone decides how long things take.
    """

    on_progress: OnProgress | None = None
    on_step: Callable[[str, Verdict], None] | None = None
    on_run: Callable[[], None] | None = None


def refuse_invalid_request(request: Request) -> None:
    """Find what is wrong with the request before any library is loaded.

    Raises:
        UsageError: an option makes no sense. UnknownNameError: no such suite.
        MissingInputError: there is no evidence or signature file of the name that was given.
    """
    samples, seed, time_limit = request.samples, request.seed, request.time_limit
    _ = request.threat  # it refuses nonsense itself
    if request.eps is None and (request.norm is not None or request.preprocessing != Preprocessing()):
        raise UsageError("--norm, --mean, --std and --image-size are for files without a claim.", "Add --eps EPS.")
    if samples is not None and samples < 1:
        raise UsageError(f"{samples} images cannot be attacked.", "Ask for 1 or more with --samples.")
    if not 0 <= seed < 2**_SEED_BITS:
        raise UsageError(f"the seed {seed} is not from 0 to {2**_SEED_BITS - 1}.", "Leave --seed out for a fresh one.")
    if time_limit is not None and not 0 < time_limit < math.inf:
        raise UsageError(f"a time limit of {time_limit:g} s makes no sense.", "Give seconds above 0 with --time-limit.")
    if request.memory_limit is not None and request.memory_limit < 0:
        raise UsageError(
            f"a memory limit of {request.memory_limit} bytes makes no sense.", "Give --memory-limit 8GB, or 0 for none."
        )
    if request.threads is not None and request.threads < 1:
        raise UsageError(f"{request.threads} threads make no sense.", "Use --threads 1 or more.")
    if request.provider not in ("cpu", "cuda"):
        raise UsageError(f"the provider {request.provider!r} is not known.", "Use --provider cpu or cuda.")
    if request.suite not in (None, "verify", VERIFY_SUITE, REPLAY_SUITE):
        get_suite(request.suite)
    if request.evidence_file is not None and not request.evidence_file.is_file():
        raise MissingInputError(f"there is no evidence file {request.evidence_file}.")
    if request.signature_file is not None and request.public_key is None:
        raise UsageError(
            f"the signature {request.signature_file} can be checked by a key alone.",
            "Name the key of its owner with --public-key.",
        )
    if request.signature_file is not None and not request.signature_file.is_file():
        raise MissingInputError(f"there is no signature file {request.signature_file}.")
