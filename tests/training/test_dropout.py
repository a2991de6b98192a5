"""Dropout draws from torch's global generators; the loop seeds them, so that equal runs have equal bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from compressor.checkpoint import load_checkpoint
from compressor.core.contracts import Split, SplitName
from compressor.core.errors import Interrupted
from compressor.core.reporting import SilentReporter
from compressor.numerics.randomness import drawing_from
from compressor.runs.recipe import resolve
from compressor.runs.run_folder import RunFolder
from compressor.system.interruption import StopRequest
from compressor.training.configuration import RunConfig
from compressor.training.session import train
from tests.support.training import Watcher

CPU = torch.device("cpu")


class Noise:
    """Sixteen pictures to train on, of two classes."""

    name = "noise"
    class_names = ("one", "other")
    image_size = 16

    def has(self, split: SplitName) -> bool:
        return True

    def load(self, split: SplitName) -> Split:
        rng = np.random.default_rng(len(split))
        return Split(rng.integers(0, 256, (16, 3, 16, 16)).astype(np.uint8), np.arange(16) % 2)


def weights(folder: Path, *, seed: int = 0, stop_after: int = 0) -> dict[str, torch.Tensor]:
    settings = resolve("natural", "torchvision:mobilenet_v3_small+small", None, {
        "epochs": 1, "batch_size": 4, "image_size": 16, "precision": "fp32", "selection_steps": 1, "seed": seed,
        "learning_rate": 0.01,
    })  # fmt: skip
    stop = StopRequest()
    reporter = Watcher(stop, stop_after) if stop_after else SilentReporter()
    request = RunConfig(settings, Noise(), RunFolder(folder), CPU, resume=folder.exists())
    train(request, None, reporter=reporter, stop=stop)
    return load_checkpoint(folder / "last.safetensors").classifier.state_dict()


def test_a_network_with_dropout_resumes_to_the_bit_whatever_the_global_generator_did(tmp_path: Path) -> None:
    whole = weights(tmp_path / "whole")
    torch.rand(17)  # another history of the global generator
    with pytest.raises(Interrupted):
        weights(tmp_path / "parted", stop_after=2)
    torch.rand(5)
    before = torch.get_rng_state()
    parted = weights(tmp_path / "parted")
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, parted[key]) for key, value in whole.items())


def test_what_is_drawn_is_a_function_of_the_key_and_the_generator_is_left_as_it_was() -> None:
    def draw(*key: int | str) -> torch.Tensor:
        with drawing_from(*key, device=CPU):
            return torch.nn.functional.dropout(torch.ones(64))

    before = torch.get_rng_state()
    first, again, other = draw(0, "outer", 1), draw(0, "outer", 1), draw(0, "outer", 2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
