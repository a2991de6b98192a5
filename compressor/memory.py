"""How much memory is free, and arrays that stay on the disk when it is not enough."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


def free_memory() -> int:
    """Bytes that can still be allocated: what the system reports, or what the container's limit leaves if less."""
    return min(_system_memory(), _container_memory())


def fits_in_memory(size: int) -> bool:
    """Whether ``size`` bytes are at most half of the free memory; larger arrays are better memory-mapped."""
    return size <= free_memory() // 2


def _system_memory() -> int:
    try:
        for line in _MEMINFO.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    # Systems without /proc tell only the whole: assume that half of it is taken.
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _container_memory() -> int:
    no_limit = 1 << 62
    try:
        limit = (_CGROUP / "memory.max").read_text(encoding="ascii").strip()
        used = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
        statistics = (_CGROUP / "memory.stat").read_text(encoding="ascii").split()
    except OSError:
        return no_limit
    if limit == "max":
        return no_limit
    # Cached file pages count as used, but the kernel gives them up first.
    cached = int(statistics[statistics.index("inactive_file") + 1]) if "inactive_file" in statistics else 0
    return max(0, int(limit) - used + cached)
