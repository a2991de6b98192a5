"""What several tests of the command line start from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from compressor.checkpoint import save_checkpoint
from compressor.core.types import ModelSpec
from compressor.models.classifier import build_classifier


@pytest.fixture(scope="session")
def digits_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a small network that knows its digits, and holds against eps = 0.02; not to be written to."""
    path = tmp_path_factory.mktemp("student") / "student.safetensors"
    torch.manual_seed(0)
    model = build_classifier(ModelSpec("wideresnet-10-1", 10, 8), seed=1).train()
    digits = load_digits()
    x = torch.tensor(digits.images / 16, dtype=torch.float32).unsqueeze(1).repeat(1, 3, 1, 1)
    y = torch.tensor(digits.target)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(24):
        part = slice(64 * (step % 16), 64 * (step % 16) + 64)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[part]), y[part]).backward()
        optimizer.step()
    save_checkpoint(path, model.eval(), {})
    return path
