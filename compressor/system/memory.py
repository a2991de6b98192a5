"""How much memory is free, whether an array fits into it, and how the process keeps what it has freed."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_LARGEST_INT = 2**31 - 1

_OUT_OF_MEMORY = (
    *("out of memory", "can't allocate memory", "Cannot allocate memory"),
    *("Failed to allocate memory", "bad allocation", "bad_alloc", "Arena alloc failed"),
)
"""torch and CUDA, the system, onnxruntime, C++ in two compilers' words, and protobuf."""

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


def free_memory() -> int:
    """Bytes that can still be allocated: what the system reports, or what the container's limit leaves if less."""
    return min(_system_memory(), _container_memory())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a lack of memory is behind an error: Python's own, or what torch, onnxruntime and C++ say of it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or is_out_of_memory_message(str(cause)):
            return True
        cause = cause.__cause__
    return False


def is_out_of_memory_message(text: str) -> bool:
    """Whether a message is one of those by which libraries say that memory could not be had."""
    return any(words in text for words in _OUT_OF_MEMORY)


def fits_in_memory(size: int) -> bool:
    """Whether ``size`` bytes are at most half of the free memory; larger arrays are better memory-mapped."""
    return size <= free_memory() // 2


def keep_freed_memory() -> bool:
    """Let freed memory stay with the process, where the C library can be told so; returns whether it could.

    A training step frees and takes the same gigabytes again and again. glibc maps every large block anew, and the
    kernel fills each page with zeros at its first touch: a quarter to a third of a MobileNetV2's outer step on a CPU.
    The price is that the process holds its peak until it ends. What is free at the call goes back first.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        library = ctypes.CDLL(None)
        trim, tune = library.malloc_trim, library.mallopt
    except (OSError, AttributeError):  # another C library, such as musl
        return False
    trim(0)  # what is free now may lie in pieces that are of no use later
    # 1 is success. Large blocks come from the heap instead of maps of their own, and the heap is not cut back.
    return bool(tune(_M_MMAP_MAX, 0) == 1 and tune(_M_TRIM_THRESHOLD, _LARGEST_INT) == 1)


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
