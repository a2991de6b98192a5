"""What this machine has and lacks, told without computing anything."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.gpu.packed import NEEDED

_DISTRIBUTIONS = {
    "PIL": ("pillow",), "pytest_timeout": ("pytest-timeout",), "xdist": ("pytest-xdist",),
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime"),
}  # fmt: skip


def describe(work: Path) -> dict[str, Any]:
    """Versions, cores, free disk space and the GPU."""
    packages = {module: _version(module) for module in NEEDED}
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "free_disk_bytes": shutil.disk_usage(work).free,
        "gpu": _gpu(),
        "packages": {module: version for module, version in packages.items() if version},
        "absent": [module for module, version in packages.items() if not version],
    }


def _version(module: str) -> str | None:
    """The version of a module's package; ``None`` where it cannot be imported."""
    if importlib.util.find_spec(module) is None:
        return None
    for name in _DISTRIBUTIONS.get(module, (module,)):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "of unknown version"


def _gpu() -> dict[str, Any] | None:
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "capability": ".".join(map(str, torch.cuda.get_device_capability(0))),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "count": torch.cuda.device_count(),
        "driver": _driver(),
    }


def _driver() -> str | None:
    """The driver's version and the clocks as found; ``None`` where nvidia-smi does not tell."""
    query = ["nvidia-smi", "--query-gpu=driver_version,clocks.sm,clocks.mem,power.limit", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
