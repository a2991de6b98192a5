"""Whether our AutoAttack finds what its authors' own finds: counted image by image, on the same images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from compressor.evaluation.report import Bits
from compressor.numerics.statistics import mcnemar

LEAST_P = 0.01
LARGEST_EXCESS = 0.005


@dataclass(frozen=True)
class ReferenceAgreement:
    """Two runs on the same images.

    Attributes:
        images: how many.
        broken_only_by_ours: broken by ours and not by the reference.
        broken_only_by_reference: broken by the reference and not by ours.
    """

    images: int
    broken_only_by_ours: int
    broken_only_by_reference: int

    @property
    def disagreements(self) -> int:
        """Images on which the two differ."""
        return self.broken_only_by_ours + self.broken_only_by_reference

    @property
    def p_value(self) -> float:
        """McNemar's exact test, two-sided: how likely so uneven a split of the disagreements is by chance."""
        return mcnemar(self.broken_only_by_ours, self.broken_only_by_reference)

    @property
    def excess(self) -> float:
        """Our robust accuracy minus the reference's: positive where ours looks better than it should."""
        return (self.broken_only_by_reference - self.broken_only_by_ours) / self.images

    @property
    def holds(self) -> bool:
        """Whether ours may replace the reference: p above 0.01, and at most 0.5 points above it."""
        return self.p_value > LEAST_P and self.excess <= LARGEST_EXCESS

    def to_json(self) -> dict[str, Any]:
        """Counts, and what follows from them."""
        return {
            "images": self.images,
            "disagreements": self.disagreements,
            "ours_alone": self.broken_only_by_ours,
            "reference_alone": self.broken_only_by_reference,
            "p_value": self.p_value,
            "excess": self.excess,
            "holds": self.holds,
        }


def compare_with_reference(ours: Bits, reference: Bits) -> ReferenceAgreement:
    """Count where two runs differ.

    Args:
        ours: bool ``[N]``: right also under our attack.
        reference: bool ``[N]``: the same images under the reference.
    """
    if ours.shape != reference.shape or len(ours) == 0:
        raise ValueError("the two runs are not on the same images")
    return ReferenceAgreement(len(ours), int(np.sum(~ours & reference)), int(np.sum(ours & ~reference)))
