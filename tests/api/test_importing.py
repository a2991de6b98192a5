"""``import compressor`` costs no torch, and yet every public name is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import compressor

ROOT = Path(__file__).parents[2]


def test_importing_the_packages_loads_no_heavy_library() -> None:
    code = (
        "import sys, compressor, exporters;"
        "names = set(compressor.__all__) & set(dir(compressor));"
        "assert names == set(compressor.__all__);"
        "heavy = {'torch', 'numpy', 'onnx', 'onnxruntime', 'torchvision', 'rich', 'typer'} & set(sys.modules);"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", compressor.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert getattr(compressor, name).__doc__


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="distil"):
        compressor.distil  # noqa: B018
