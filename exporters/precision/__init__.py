"""An exported fp32 file in fewer bits: float16, or eight-bit integers."""

from __future__ import annotations

from exporters.precision.calibration import calibration_images, search_images
from exporters.precision.half import HALF_LIMIT, HalfModel, to_half
from exporters.precision.integer import Int8Settings, to_int8
from exporters.precision.measuring import robust_under_attack
from exporters.precision.search import ALLOWED_LOSS, Int8Search, search_int8

__all__ = [
    "ALLOWED_LOSS",
    "HALF_LIMIT",
    "HalfModel",
    "Int8Search",
    "Int8Settings",
    "calibration_images",
    "robust_under_attack",
    "search_images",
    "search_int8",
    "to_half",
    "to_int8",
]
