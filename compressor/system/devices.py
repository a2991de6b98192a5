"""Which device and how many threads: what was asked for, or an error; never a silent fallback."""

from __future__ import annotations

import torch

from compressor.core.errors import MissingDeviceError, UsageError
from compressor.system import launch
from compressor.system.threads import available_threads


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
