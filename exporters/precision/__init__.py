"""An exported fp32 file in fewer bits: float16, or eight-bit integers."""

from __future__ import annotations

from exporters.precision.calibration import calibration_images
from exporters.precision.half import HALF_LIMIT, HalfModel, to_half
from exporters.precision.integer import to_int8

__all__ = ["HALF_LIMIT", "HalfModel", "calibration_images", "to_half", "to_int8"]
