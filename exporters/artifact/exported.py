"""One export, made or found, with the verdict of its verification."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exporters.artifact.artifact import Artifact, ExportSettings
    from exporters.differentiable.arithmetic import Arithmetic
    from exporters.verification import Verdict


@dataclass(frozen=True, eq=False)
class ExportedFile:
    """One file on disk, and what a verification of it found.

    Attributes:
        path: the file.
        precision: of the file.
        settings: how it was made, or how it would have been made had it not been there already.
        verdict: of the verification.
        artifact: what was made; None where the file was there already.
    """

    path: Path
    precision: Arithmetic
    settings: ExportSettings
    verdict: Verdict
    artifact: Artifact | None
