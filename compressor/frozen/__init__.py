"""The frozen twin: a model as attacks see it, its BatchNorm folded away, refreshed when the original moves."""

from compressor.frozen.precision import choose_precision
from compressor.frozen.surrogate import (
    Surrogate,
    confirm_misclassified,
    decider_of,
    finisher_of,
    surrogate_of,
    uncertainty_between,
)
from compressor.frozen.twin import FrozenPrecision, FrozenTwin, chunk_for, chunk_of, folded_twin, in_chunks

__all__ = [
    "FrozenPrecision",
    "FrozenTwin",
    "Surrogate",
    "choose_precision",
    "chunk_for",
    "chunk_of",
    "confirm_misclassified",
    "decider_of",
    "finisher_of",
    "folded_twin",
    "in_chunks",
    "surrogate_of",
    "uncertainty_between",
]
