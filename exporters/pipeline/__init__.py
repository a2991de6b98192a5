"""The whole way, from a teacher's file to a verdict on the student's: for one run, or for a grid of runs."""

from __future__ import annotations

from exporters.pipeline.distillation import (
    AfterTraining,
    Distilled,
    Steps,
    carry_out,
    distill_and_verify,
    plan_whole_way,
)
from exporters.pipeline.grid import RunOutcome, distill_grid, gravest_exit_code
from exporters.pipeline.targets import open_onnx_target, open_target_by_suffix

__all__ = [
    "AfterTraining",
    "Distilled",
    "RunOutcome",
    "Steps",
    "carry_out",
    "distill_and_verify",
    "distill_grid",
    "gravest_exit_code",
    "open_onnx_target",
    "open_target_by_suffix",
    "plan_whole_way",
]
