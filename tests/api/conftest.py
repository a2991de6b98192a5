"""What the tests of the Python interface start from: small modules, and a working folder of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

SIDE = 8


class Net(nn.Module):
    """A small network of ten classes with its normalisation inside, as a user writes one."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.linear = nn.Linear(8 * SIDE * SIDE, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(torch.relu(self.norm(self.convolution(2 * x - 1))).flatten(1))
        return logits


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMPRESS_CACHE_DIR", str(tmp_path / "cache"))
    # Tests run beside each other: one thread each, and equal bits.
    monkeypatch.setattr("compressor.system.devices.available_threads", lambda: 1)
