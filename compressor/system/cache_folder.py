"""Where caches lie, and when each of their files was last used."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """``COMPRESS_CACHE_DIR``, else the platform's folder for caches, else one in the folder for temporary files."""
    chosen = os.environ.get("COMPRESS_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser()
    try:
        return platformdirs.user_cache_path("compress")
    except RuntimeError:
        # No HOME and no entry in the user database: a container that was started under any --user.
        return Path(tempfile.gettempdir()) / "compress-cache"


def mark_used(path: Path) -> None:
    """Set a file's modification time to now: pruning takes what was not used for longest. Nothing where refused."""
    with suppress(OSError):
        os.utime(path)
