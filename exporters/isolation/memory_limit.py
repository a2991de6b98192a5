"""How much memory a process of unknown appetite may take, and how the system is told so."""

from __future__ import annotations

import sys
from pathlib import Path

from compressor.system.memory import free_memory

DEFAULT_MEMORY = 16_000_000_000
"""The most that is allowed unasked, in bytes; where less is free, three quarters of that."""

_STATUS = Path("/proc/self/status")


def default_limit() -> int:
    """Bytes that are allowed where nobody says otherwise."""
    return min(DEFAULT_MEMORY, free_memory() * 3 // 4) if is_supported() else DEFAULT_MEMORY


def is_supported() -> bool:
    """Whether this system limits what a process allocates: Linux does since 4.7; others know the call at most."""
    return sys.platform.startswith("linux") and _STATUS.exists()


def limit_memory(size: int) -> None:
    """Let this process allocate ``size`` bytes more than it has now, for good: then ``malloc`` and ``mmap`` fail.

    It is ``RLIMIT_DATA``, which counts private writable memory, whether it is touched or not. ``RLIMIT_AS`` would count
    the address space too that CUDA builds of torch reserve, tens of gigabytes.
    """
    import resource

    limit = _data_in_use() + size
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def leave_no_core() -> None:
    """Let a crash write no core file, which would be as large as the process."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _data_in_use() -> int:
    for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{_STATUS} does not say how much memory is in use")
