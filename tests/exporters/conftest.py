"""Two sealed files of a few kilobytes that hold, made once, and pictures of nothing to seal others with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compressor.core.contracts import Split
from compressor.core.types import Threat
from exporters.artifact.sealing import ExportSettings, seal
from exporters.claim.evidence import evidence_path
from tests.support.patterns import TestImages

SIDE = 6


class Pictures(TestImages):
    """Three classes of pictures that a linear model tells apart, from faint to plain."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.patterns = rng.uniform(-1, 1, (3, 3 * SIDE * SIDE))
        labels = rng.integers(0, 3, 200)
        x = 0.5 + 0.35 * rng.uniform(0, 1, (200, 1)) * self.patterns[labels]
        pixels = np.rint(255 * x.clip(0.1, 0.9)).astype(np.uint8).reshape(-1, 3, SIDE, SIDE)
        super().__init__("pictures", Split(pixels, labels.astype(np.int64)))


def classifier(patterns: Any, *, convolves: bool) -> onnx.ModelProto:
    """A linear classifier; with a convolution before it that changes nothing, as a graph of more than two operators."""
    weights = (10 * (patterns - patterns.mean(0))).astype(np.float32)
    kernel = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    nodes = [
        helper.make_node("Flatten", ["active" if convolves else "input"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "W", "b"], ["logits"], transB=1),
    ]
    initializers = [numpy_helper.from_array(weights, "W"), numpy_helper.from_array(-0.5 * weights.sum(1), "b")]
    if convolves:
        convolution = helper.make_node("Conv", ["input", "kernel"], ["same"], pads=[0, 0, 0, 0])
        nodes = [convolution, helper.make_node("Relu", ["same"], ["active"]), *nodes]
        initializers.append(numpy_helper.from_array(kernel, "kernel"))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def sealed_file(folder: Path, *, convolves: bool) -> Path:
    data: Any = Pictures()
    model = classifier(data.patterns, convolves=convolves)
    sealed = seal(model, data, Threat("Linf", "0.02"), ExportSettings(samples=64, threads=1))
    path = folder / "model.onnx"
    path.write_bytes(sealed.model)
    evidence_path(path).write_bytes(sealed.evidence)
    return path


@pytest.fixture(scope="session")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sealed linear classifier and its evidence beside it; not to be written to."""
    return sealed_file(tmp_path_factory.mktemp("linear"), convolves=False)


@pytest.fixture(scope="session")
def convolving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a convolution; not to be written to."""
    return sealed_file(tmp_path_factory.mktemp("convolving"), convolves=True)


class Noise:
    """Random pictures under three labels, as many as are asked for; every split is the same."""

    name, class_names = "pictures", ("a", "b", "c")

    def __init__(self, count: int, image_size: int) -> None:
        self.image_size = image_size
        shape = (count, 3, image_size, image_size)
        self._split = Split(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), np.arange(count) % 3)

    def has(self, split: str) -> bool:
        return True

    def load(self, split: str) -> Split:
        return self._split


@pytest.fixture
def noise() -> Callable[[int, int], Any]:
    """A dataset of so many random pictures of that size."""
    return Noise
