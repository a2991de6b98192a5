"""How far each image is from an error: the shortest perturbation that FAB finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.attack_report.subject import AttackedSample
from compressor.core.types import Norm
from compressor.evaluation.suites import SuiteColumn

FAB_STEPS = 50
FAB_TARGETS = 3


@dataclass(frozen=True, eq=False)
class MinimalNorms:
    """The length of the shortest perturbation found for each image of the sample.

    Every length is an upper bound: there may be a shorter perturbation, and there is none where none is needed.

    Attributes:
        norm: what lengths are measured in.
        distances: float64 ``[n]``, in units of the pixel range; 0 where the model errs unattacked, infinite where
            nothing was found.
    """

    norm: Norm
    distances: NDArray[np.float64]

    @property
    def median(self) -> float:
        """Half of the images need no more than this; infinite where fewer than half were broken."""
        return float(np.sort(self.distances)[(len(self.distances) - 1) // 2])

    def cumulative(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Finite lengths in rising order with the fraction of images that each of them reaches, both ``[m]``."""
        found = np.sort(self.distances[np.isfinite(self.distances)])
        return found, np.arange(1, len(found) + 1) / len(self.distances)


def minimal_norms(subject: AttackedSample, norm: Norm) -> MinimalNorms:
    """Ask FAB for the closest error of each image, towards its likeliest wrong classes."""
    fab: Any = SuiteColumn(
        "norms", "fab-t", {"steps": FAB_STEPS, "targets": min(FAB_TARGETS, subject.classes - 1)}
    ).build()
    found = [
        fab.closest(subject.attacked, x, y, norm, generator)[1]
        for x, y, generator in subject.batches(f"smallest perturbations {norm}")
    ]
    return MinimalNorms(norm, np.concatenate([part.cpu().numpy().astype(np.float64) for part in found]))
