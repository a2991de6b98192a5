"""What the training tests share: a cache of their own, so that no run finds another's answers, and one thread."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.threads import one_thread  # noqa: F401 - a fixture of every test here


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESS_CACHE_DIR", str(tmp_path / "cache"))
