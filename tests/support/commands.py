"""The command line, called in this process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cli.main import main


def answer(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    """The exit code and the one JSON object of a command."""
    capsys.readouterr()
    code = main([*arguments, "--json"])
    out = capsys.readouterr().out
    assert out.count("\n") == 1, "exactly one object on one line"
    value: dict[str, Any] = json.loads(out)
    return code, value


def work_in_copy(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a copy of a folder, with the folder's own cache."""
    shutil.copytree(place, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setenv("COMPRESS_CACHE_DIR", str(place / "cache"))
    return tmp_path / "copy"


def save_pictures(
    root: Path,
    classes: Sequence[str],
    counts: Mapping[str, int],
    paint: Callable[[np.random.Generator, str], np.ndarray],
) -> None:
    """An image folder of 16 x 16 pixels: ``SPLIT/CLASS/NUMBER.png``, as many of each class as a split is to have."""
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        for name in classes:
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(paint(rng, name).astype(np.uint8)).save(folder / f"{number:02d}.png")
