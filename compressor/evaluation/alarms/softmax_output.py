"""The model ends in a softmax: what it gives are probabilities, not logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compressor.evaluation.alarms._contract import ExaminedEvaluation


@dataclass(frozen=True)
class SoftmaxOutput:
    """Look whether no output is negative and each image's add up to 1.

    Attributes:
        tolerance: by how much a sum may miss 1.
    """

    meaning: ClassVar[str] = (
        "Losses take a softmax of their own, and that of probabilities is almost flat, so gradients vanish where the "
        "model is sure: attack the model without its softmax."
    )

    tolerance: float = 1e-3

    def __call__(self, examined: ExaminedEvaluation) -> str | None:
        """Look at the logits of the sample."""
        logits = examined.logits.double()
        probabilities = (logits >= 0).all() and ((logits.sum(1) - 1).abs() < self.tolerance).all()
        return f"the outputs of all {len(logits)} images add up to 1, and none is negative" if probabilities else None


CHECK = SoftmaxOutput()
