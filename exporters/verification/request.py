"""What the caller asked of one verification, who is told how it goes, and the command line that repeats it."""

from __future__ import annotations

import math
import secrets
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from compressor.core.errors import MissingInputError, UsageError
from compressor.core.reporting import OnProgress
from compressor.core.types import DatasetSpec, Threat
from compressor.evaluation.suites import get_suite
from exporters.file_attacks.suite import REPLAY_SUITE, VERIFY_SUITE
from exporters.model_file.preprocessing import Preprocessing
from exporters.verification.policies import Policies
from exporters.verification.verdict import Verdict

if TYPE_CHECKING:
    from compressor.core.contracts import Dataset
    from exporters.model_file.runtime import Provider

_SEED_BITS = 63


def fresh_seed() -> int:
    """A seed from the operating system, which no file can foresee."""
    return secrets.randbits(_SEED_BITS)


@dataclass(frozen=True)
class VerifierData:
    """The dataset that the verifier holds, opened only when the file has said at which image size.

    Attributes:
        source: an opened dataset, or what ``--data`` names.
        data_dir: where archives are looked for.
        download: whether an absent archive may be fetched.
    """

    source: Dataset | DatasetSpec
    data_dir: Path | None = None
    download: bool = False

    def open(self, image_size: int) -> Dataset:
        """The dataset at ``image_size``."""
        from compressor.data.datasets import open_dataset

        if not isinstance(self.source, DatasetSpec):
            return self.source
        return open_dataset(self.source, data_dir=self.data_dir, download=self.download, image_size=image_size)


@dataclass(frozen=True)
class Request:
    """What the caller chose; see :func:`exporters.verification.verify`."""

    path: Path
    evidence: Path | None = None
    data: VerifierData | None = None
    suite: str | None = None
    latest: bool = False
    seed: int = field(default_factory=fresh_seed)
    samples: int | None = None
    provider: Provider = "cpu"
    threads: int | None = None
    policies: Policies = field(default_factory=Policies)
    accept_black_box: bool = False
    time_limit: float | None = None
    manifest: Path | None = None
    public_key: Path | None = None
    signature: Path | None = None
    threat: Threat | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)


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
    if samples is not None and samples < 1:
        raise UsageError(f"{samples} images cannot be attacked.", "Ask for 1 or more with --samples.")
    if not 0 <= seed < 2**_SEED_BITS:
        raise UsageError(f"the seed {seed} is not from 0 to {2**_SEED_BITS - 1}.", "Leave --seed out for a fresh one.")
    if time_limit is not None and not 0 < time_limit < math.inf:
        raise UsageError(f"a time limit of {time_limit:g} s makes no sense.", "Give seconds above 0 with --time-limit.")
    if request.threads is not None and request.threads < 1:
        raise UsageError(f"{request.threads} threads make no sense.", "Use --threads 1 or more.")
    if request.provider not in ("cpu", "cuda"):
        raise UsageError(f"the provider {request.provider!r} is not known.", "Use --provider cpu or cuda.")
    if request.suite not in (None, "verify", VERIFY_SUITE, REPLAY_SUITE):
        get_suite(request.suite)
    if request.evidence is not None and not request.evidence.is_file():
        raise MissingInputError(f"there is no evidence file {request.evidence}.")
    if request.signature is not None and request.public_key is None:
        raise UsageError(
            f"the signature {request.signature} can be checked by a key alone.",
            "Name the key of its owner with --public-key.",
        )
    if request.signature is not None and not request.signature.is_file():
        raise MissingInputError(f"there is no signature file {request.signature}.")


def command_of(request: Request) -> str:
    """The command line that repeats this run."""
    words = ["compress", "verify", str(request.path), "--seed", str(request.seed)]
    files = {"--evidence-file": request.evidence}
    if request.data is not None and isinstance(request.data.source, DatasetSpec):
        words += ["--data", str(request.data.source)]
        files["--data-dir"] = request.data.data_dir
    files |= {
        "--manifest": request.manifest,
        "--public-key": request.public_key,
        "--signature-file": request.signature,
    }
    words += [word for name, path in files.items() if path is not None for word in (name, str(path))]
    if request.suite is not None:
        words += ["--suite", request.suite]
    if request.samples is not None:
        words += ["--samples", str(request.samples)]
    if request.provider != "cpu":
        words += ["--provider", request.provider]
    words += request.policies.to_arguments() + _words_without_claim(request.threat, request.preprocessing)
    flags = {"--latest": request.latest, "--accept-black-box": request.accept_black_box}
    return shlex.join(words + [flag for flag, given in flags.items() if given])


def _words_without_claim(threat: Threat | None, preprocessing: Preprocessing) -> list[str]:
    """What is said of a file that says nothing itself."""
    words = ["--eps", threat.eps, "--norm", threat.norm] if threat is not None else []
    if preprocessing.normalization is not None:
        rows = {"--mean": preprocessing.normalization.mean, "--std": preprocessing.normalization.std}
        words += [word for name, row in rows.items() for word in (name, ",".join(map(repr, row)))]
    return words + (["--image-size", str(preprocessing.image_size)] if preprocessing.image_size is not None else [])
