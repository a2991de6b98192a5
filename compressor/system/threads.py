"""How many cores this process may really use."""

from __future__ import annotations

import os
from pathlib import Path

from compressor.system import launch

_CGROUP = Path("/sys/fs/cgroup")


def available_threads() -> int:
    """Threads this process can keep busy: its share of the cores.

    The cores are its CPU affinity, bounded by the whole cores of its container's quota; the processes that a launcher
    started on this machine share them.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_cores(_CGROUP)
    cores = cores if quota is None else min(cores, int(quota))
    return max(1, cores // launch.local_world_size())


def cgroup_cores(root: Path) -> float | None:
    """The CPU quota, in cores, of the cgroup (version 2, else 1) mounted at ``root``; None where there is no limit."""
    try:
        quota, period = (root / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        try:
            quota = (root / "cpu/cpu.cfs_quota_us").read_text(encoding="ascii")
            period = (root / "cpu/cpu.cfs_period_us").read_text(encoding="ascii")
        except OSError:
            return None
    try:
        cores = float(quota) / float(period)
    except (ValueError, ZeroDivisionError):
        return None  # "max": no limit
    return cores if cores > 0 else None  # version 1 writes -1 for no limit
