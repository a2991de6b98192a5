"""The model ends in a softmax: what it gives are probabilities, not logits."""

from __future__ import annotations

from compressor.evaluation.alarms._contract import AlarmCheck, ExaminedEvaluation

_TOLERANCE = 1e-3  # by how much a sum may miss 1


def _find(examined: ExaminedEvaluation) -> str | None:
    """Look whether no output of the sample is negative and each image's add up to 1."""
    logits = examined.logits.double()
    probabilities = (logits >= 0).all() and ((logits.sum(1) - 1).abs() < _TOLERANCE).all()
    return f"the outputs of all {len(logits)} images add up to 1, and none is negative" if probabilities else None


CHECK = AlarmCheck(
    "Losses take a softmax of their own, and that of probabilities is almost flat, so gradients vanish where the "
    "model is sure: attack the model without its softmax.",
    _find,
)
