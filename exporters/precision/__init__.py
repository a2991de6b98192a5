"""An exported fp32 file in fewer bits: float16, or eight-bit integers."""
