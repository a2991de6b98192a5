"""What the card reaches on one large matrix product, by arithmetic; and which arithmetic fp32 stands for."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.gpu.turns import synchronize

# Arithmetic -> type of the operands, and torch's word for how exact float32 products must be.
_KINDS = {"fp32": (torch.float32, "highest"), "tf32": (torch.float32, "high"), "bf16": (torch.bfloat16, "highest")}


def measured_peaks(device: torch.device, *, side: int, repeats: int = 20) -> dict[str, float]:
    """Operations a second of a product of random square matrices, a median of ``repeats`` for each arithmetic."""
    before = torch.get_float32_matmul_precision()
    peaks = {}
    try:
        for name, (dtype, precision) in _KINDS.items():
            torch.set_float32_matmul_precision(precision)
            a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
            times = []
            for _ in range(repeats + 3):
                synchronize(device)
                started = time.perf_counter()
                a @ b
                synchronize(device)
                times.append(time.perf_counter() - started)
            peaks[name] = 2 * side**3 / statistics.median(times[3:])
    finally:
        torch.set_float32_matmul_precision(before)
    return peaks


def float32_switches() -> dict[str, bool]:
    """Torch's switches for TF32 as they stand now: for convolutions and for matrix products."""
    return {
        "convolutions": _either(
            lambda: torch.backends.cudnn.allow_tf32, lambda: torch.backends.cudnn.conv.fp32_precision == "tf32"
        ),
        "matrix products": _either(
            lambda: torch.backends.cuda.matmul.allow_tf32, lambda: torch.backends.cuda.matmul.fp32_precision == "tf32"
        ),
        "cudnn.benchmark": torch.backends.cudnn.benchmark,
    }


def _either(old: Callable[[], bool], new: Callable[[], bool]) -> bool:
    """Torch refuses to read its old switches where somebody has set the new ones."""
    try:
        return old()
    except RuntimeError:
        return new()


def unit_of(arithmetic: str, switches: dict[str, bool], device: torch.device) -> str:
    """The peak that a side is held against: fp32 convolutions run on TF32 units where the switch is on."""
    tf32 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0) and switches["convolutions"]
    return "tf32" if arithmetic == "fp32" and tf32 else arithmetic
