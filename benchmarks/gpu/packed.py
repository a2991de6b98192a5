"""The folder that travels to the machine: what lies in it, and how it is unpacked there. Needs no library."""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

PICTURES, TEACHERS, WHEELS, CONTENTS = "pictures.tar.xz", "teacher", "wheels", "contents.json"

# What the product and the yardsticks import, by the name of the module.
NEEDED = (
    "torch", "torchvision", "numpy", "onnx", "onnxscript", "onnxruntime", "typer", "rich", "safetensors", "accelerate",
    "pyautoattack", "platformdirs", "PIL", "cryptography", "pytest", "pytest_timeout", "xdist", "hypothesis",
)  # fmt: skip


def read_contents(folder: Path) -> dict[str, Any]:
    """What ``pack.py`` wrote about the folder.

    Raises:
        FileNotFoundError: it was not filled by ``pack.py``.
    """
    path = folder / CONTENTS
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no {CONTENTS}: fill it with benchmarks/gpu/pack.py first.")
    contents: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return contents


def what_is_absent(folder: Path) -> list[str]:
    """Files that the folder should have and does not, or not in full: one sentence for each."""
    absent = []
    for name, size in read_contents(folder)["files"].items():
        path = folder / name
        found = path.stat().st_size if path.is_file() else None
        if found != size:
            absent.append(f"{name} has {'no file' if found is None else f'{found:,} bytes'}, not {size:,} bytes.")
    return absent


def teacher(folder: Path) -> Path:
    """The teacher's checkpoint.

    Raises:
        FileNotFoundError: there is not exactly one.
    """
    found = sorted(path for path in (folder / TEACHERS).glob("*") if path.is_file())
    if len(found) != 1:
        raise FileNotFoundError(f"{folder / TEACHERS} has {len(found)} files, and one teacher is needed.")
    return found[0]


def unpack_pictures(folder: Path, work: Path) -> Path:
    """Unpack the pictures below ``work``, once; returns the folder with ``train`` and ``test``."""
    target = work / "pictures"
    if target.is_dir():
        return target
    unfinished = work / "pictures.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    with tarfile.open(folder / PICTURES, "r|xz") as archive:
        archive.extractall(unfinished, filter="data")
    unfinished.rename(target)
    return target


def site(work: Path) -> Path:
    """Where this Python's wheels are unpacked."""
    return work / f"site-{sys.version_info.major}.{sys.version_info.minor}"


def unpack_wheels(folder: Path, work: Path) -> Path:
    """Unpack the wheels below ``work`` into one folder for Python's path; returns it.

    A wheel is a zip file of what goes on the path, so no installer is needed.
    """
    target = site(work)
    target.mkdir(parents=True, exist_ok=True)
    for wheel in sorted((folder / WHEELS).glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(target)
    return target
