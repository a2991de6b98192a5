"""The examples in the docstrings of ``exporters`` do what they show."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import exporters
from compressor.core.types import DatasetSpec
from compressor.data.datasets import open_dataset

SIDE = 8


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with an exported linear classifier of digits, and the names that the examples take for granted."""
    folder = tmp_path_factory.mktemp("examples")
    digits = open_dataset(DatasetSpec("digits"), image_size=SIDE)
    train, test = digits.load("train"), digits.load("test")
    x = train.images.reshape(len(train), -1) / 255 - 0.5
    targets = 20 * (np.eye(10)[train.labels] - 0.1)
    weight = np.linalg.solve(x.T @ x + 100 * np.eye(x.shape[1]), x.T @ targets).T
    module = nn.Sequential(nn.Flatten(), nn.Linear(x.shape[1], 10))
    linear = module[1]
    linear.weight.data = torch.tensor(weight, dtype=torch.float32)
    linear.bias.data = -0.5 * linear.weight.data.sum(1)
    names = {"module": module, "images": test.images, "labels": test.labels}
    exporters.export(
        module,
        data=(test.images, test.labels),
        eps=4 / 255,
        evidence_samples=32,
        threads=1,
        output=folder / "model.onnx",
    )
    return folder, names


@pytest.mark.parametrize("name", ["export", "inspect", "verify", "write_manifest"])
def test_the_examples_of_a_docstring(
    name: str, place: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, names = place
    monkeypatch.chdir(folder)
    function = getattr(exporters, name)
    (example,) = doctest.DocTestFinder(recurse=False).find(function, name, globs=dict(names))
    assert example.examples
    said: list[str] = []
    doctest.DocTestRunner().run(example, out=said.append)
    assert "".join(said) == ""
