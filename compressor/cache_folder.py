"""Where caches lie, and when each of their files was last used."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """``COMPRESS_CACHE_DIR``, else the platform's folder for caches."""
    chosen = os.environ.get("COMPRESS_CACHE_DIR")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("compress")


def mark_used(path: Path) -> None:
    """Set a file's modification time to now: pruning takes what was not used for longest. Nothing where refused."""
    with suppress(OSError):
        os.utime(path)
