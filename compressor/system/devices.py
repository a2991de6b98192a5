"""Which device, how many threads, and how exactly float32 is computed: what was asked for, or an error."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch

from compressor.core.errors import MissingDeviceError, UsageError
from compressor.system import launch
from compressor.system.threads import available_threads

_FIRST_WITH_TF32 = (8, 0)  # Ampere, by compute capability


def resolve_device(name: str = "auto") -> torch.device:
    """The device that ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps`` means here.

    Under a launcher, ``auto`` and ``cuda`` mean the GPU of this process's number on its machine.

    Raises:
        UsageError: another name. MissingDeviceError: a device that is not there.
    """
    if name == "auto":
        return resolve_device("cuda") if torch.cuda.is_available() else torch.device("cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and (kind != "cuda" or not number.isdigit())):
        raise UsageError(f"the device {name!r} is not known.", "Use auto, cpu, cuda, cuda:N or mps.")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = int(number) if number else launch.local_rank() or 0
        if index >= count:
            raise MissingDeviceError(
                f"the device cuda:{index} is not there: PyTorch sees {count} CUDA device(s).",
                "Use --device cpu, or see `compress doctor`.",
            )
        device = torch.device("cuda", index)
        torch.cuda.set_device(device)
        return device
    if kind == "mps" and not torch.backends.mps.is_available():
        raise MissingDeviceError("the device mps is not there.", "Use --device cpu, or see `compress doctor`.")
    return torch.device(kind)


def set_threads(threads: int | None) -> int:
    """Use ``threads`` cores in torch, or all available ones; returns the number."""
    count = threads if threads is not None else available_threads()
    if count < 1:
        raise UsageError(f"{count} threads make no sense.", "Use --threads 1 or more.")
    torch.set_num_threads(count)
    return count


@contextmanager
def full_float32() -> Iterator[None]:
    """Compute float32 convolutions and matrix products in float32 inside the block, never in TF32 or bfloat16.

    For whatever decides: an accuracy, a checkpoint's selection, a comparison with onnxruntime. TF32 has 10 bits of
    mantissa in place of 23, so its logits differ by about a thousandth, and PyTorch lets convolutions use it on a GPU
    unless it is told otherwise. Lower precisions that are asked for by name, such as autocast, are not touched. The
    settings are the process's; they are afterwards as they were. Also a decorator.
    """
    cudnn, cpu = cast(Any, torch.backends.cudnn), cast(Any, torch.backends.mkldnn)
    backends = (cudnn.conv, cudnn.rnn, cast(Any, torch.backends.cuda.matmul), cpu.conv, cpu.rnn, cpu.matmul)
    with _quiet():
        before = [backend.fp32_precision for backend in backends]
        products, convolutions = torch.get_float32_matmul_precision(), _legacy_convolutions()
        # PyTorch keeps an older set of the same switches, and refuses to read one that contradicts the newer.
        torch.set_float32_matmul_precision("highest")
        cudnn.allow_tf32 = False
        for backend in backends:
            backend.fp32_precision = "ieee"
    try:
        yield
    finally:
        with _quiet():
            torch.set_float32_matmul_precision(products)
            if convolutions is not None:
                cudnn.allow_tf32 = convolutions
            for backend, precision in zip(backends, before, strict=True):
                backend.fp32_precision = precision


def uses_tf32(device: torch.device) -> bool:
    """Whether float32 convolutions or matrix products compute in TF32 on this device, as PyTorch is set now."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < _FIRST_WITH_TF32:
        return False
    cudnn, products = cast(Any, torch.backends.cudnn), cast(Any, torch.backends.cuda.matmul)
    return "tf32" in (cudnn.conv.fp32_precision, products.fp32_precision)


def _legacy_convolutions() -> bool | None:
    """The older switch for convolutions; ``None`` where it contradicts the newer, and cannot be read."""
    try:
        return bool(torch.backends.cudnn.allow_tf32)
    except RuntimeError:
        return None


@contextmanager
def _quiet() -> Iterator[None]:
    """Some versions of PyTorch warn about the older switches whenever they are touched."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
