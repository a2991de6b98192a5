"""What the caller asked of one verification, and the command line that repeats it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from compressor.contracts import Dataset
from compressor.datasets import open_dataset
from compressor.types import DatasetSpec, Threat
from exporters.presentation import Preprocessing
from exporters.runtime import Provider
from exporters.verification.policies import Policies
from exporters.verification.trust import Trust

OnProgress = Callable[[str, int, int], None]
"""Receives what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class HeldData:
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
        if not isinstance(self.source, DatasetSpec):
            return self.source
        return open_dataset(self.source, data_dir=self.data_dir, download=self.download, image_size=image_size)


@dataclass(frozen=True)
class Options:
    """What the caller chose; see :func:`verify`."""

    path: Path
    evidence: Path | None
    data: HeldData | None
    suite: str | None
    latest: bool
    seed: int
    samples: int | None
    provider: Provider
    threads: int | None
    policies: Policies
    accept_black_box: bool
    on_progress: OnProgress | None
    time_limit: float | None = None
    trust: Trust = field(default_factory=Trust)
    threat: Threat | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)


def command_of(options: Options) -> str:
    """The command line that repeats this run."""
    words = ["compress", "verify", str(options.path), "--seed", str(options.seed)]
    if options.evidence is not None:
        words += ["--evidence-file", str(options.evidence)]
    if options.data is not None and isinstance(options.data.source, DatasetSpec):
        words += ["--data", str(options.data.source)]
        words += ["--data-dir", str(options.data.data_dir)] if options.data.data_dir else []
    words += options.trust.words
    if options.suite is not None:
        words += ["--suite", options.suite]
    if options.samples is not None:
        words += ["--samples", str(options.samples)]
    if options.provider != "cpu":
        words += ["--provider", options.provider]
    words += options.policies.to_arguments() + _words_without_claim(options.threat, options.preprocessing)
    flags = {"--latest": options.latest, "--accept-black-box": options.accept_black_box}
    return shlex.join(words + [flag for flag, given in flags.items() if given])


def _words_without_claim(threat: Threat | None, preprocessing: Preprocessing) -> list[str]:
    """What is said of a file that says nothing itself."""
    words = ["--eps", threat.eps, "--norm", threat.norm] if threat is not None else []
    if preprocessing.normalization is not None:
        rows = {"--mean": preprocessing.normalization.mean, "--std": preprocessing.normalization.std}
        words += [word for name, row in rows.items() for word in (name, ",".join(map(repr, row)))]
    return words + (["--image-size", str(preprocessing.image_size)] if preprocessing.image_size is not None else [])
