"""Checkpoints: reading anyone's safely, finding out what they hold, and writing our own."""

from __future__ import annotations

from compressor.checkpoint.fitting import fill_network
from compressor.checkpoint.loading import LoadedCheckpoint, load_checkpoint
from compressor.checkpoint.normalizations import named_normalization, normalization_name
from compressor.checkpoint.own_format import save_checkpoint
from compressor.checkpoint.probing import CandidateAccuracy, ProbeResult, probe
from compressor.checkpoint.reading import ForeignState, read_state
from compressor.checkpoint.recognising import recognise

__all__ = [
    "CandidateAccuracy",
    "ForeignState",
    "LoadedCheckpoint",
    "ProbeResult",
    "fill_network",
    "load_checkpoint",
    "named_normalization",
    "normalization_name",
    "probe",
    "read_state",
    "recognise",
    "save_checkpoint",
]
