"""Tests for a machine with a CUDA device: each holds what the device computes against the CPU.

Without CUDA they are skipped. With ``COMPRESS_GPU_TESTS_ON=cpu`` they run on the CPU instead, which finds mistakes in
the tests and nothing else.

Tolerances. In float32 without TF32 two devices add up the same numbers in another order. A sum of n terms of one size
then differs by about sqrt(n) roundings of 6e-8, some 1e-5 after the layers of a small network. The tests allow 1e-4 of
the logits' scale, as the verification protocol does. Every test computes in full float32 (``exact``). An attack takes
signs of gradients, where a rounding decides, so attacks are compared by their outcomes and by what the CPU says of
their images.

Equal bits. On one CUDA device a run repeats to the bit, and a resumed run equals its uninterrupted twin, if
``CUBLAS_WORKSPACE_CONFIG`` is ``:4096:8`` or ``:16:8`` before CUDA is first used, if
``torch.use_deterministic_algorithms(True)`` is set (cuDNN's deterministic convolutions come with it), and if
``torch.backends.cudnn.benchmark`` is off, as it is by default. Without these the gradients of convolution weights are
sums in an order that changes from run to run. ``deterministic`` sets all of it.
"""

from __future__ import annotations

import os

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.checkpoint import LoadedCheckpoint, load_checkpoint, save_checkpoint
from compressor.core.contracts import Split, SplitName
from compressor.core.reporting import SilentReporter
from compressor.core.types import ModelSpec
from compressor.models.classifier import build_classifier
from compressor.numerics.losses import cw_margin
from compressor.numerics.randomness import make_generator
from compressor.runs.recipe import resolve
from compressor.runs.run import Run
from compressor.runs.run_folder import RunFolder
from compressor.system.devices import full_float32
from compressor.system.interruption import StopRequest
from compressor.training.configuration import RunConfig
from compressor.training.session import train
from tests.support.threads import one_thread  # noqa: F401 - a fixture of every test here

HERE = Path(__file__).parent
STANDS_IN = os.environ.get("COMPRESS_GPU_TESTS_ON") == "cpu"
MODEL, CLASSES, SIDE = "wideresnet-10-1", 3, 16
LOGITS = 1e-4


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    absent = not torch.cuda.is_available() and not STANDS_IN
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if not STANDS_IN:  # such a machine has libraries of its own, and what they warn of is no fault of ours
                item.add_marker(pytest.mark.filterwarnings("default"))
            if absent:
                item.add_marker(
                    pytest.mark.skip(reason="there is no CUDA device (COMPRESS_GPU_TESTS_ON=cpu stands in)")
                )


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The CUDA device, or the CPU that stands in for it."""
    assert STANDS_IN or torch.cuda.is_available()
    return torch.device("cpu") if STANDS_IN else torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESS_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """No TF32: what is compared with the CPU is compared in full float32."""
    with full_float32():
        yield


@pytest.fixture
def deterministic() -> Iterator[None]:
    """What equal bits ask for; see the top of this file."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


class Stripes:
    """Three classes that a small network soon tells apart: horizontal, vertical and plain pictures."""

    name, class_names, image_size = "stripes", ("horizontal", "vertical", "plain"), SIDE

    def has(self, split: SplitName) -> bool:
        return split != "validation"

    def load(self, split: SplitName) -> Split:
        rng = np.random.default_rng({"train": 0, "test": 1, "validation": 2}[split])
        labels = np.arange(96) % CLASSES
        base = np.zeros((CLASSES, 3, SIDE, SIDE))
        base[0, :, ::4], base[1, :, :, ::4], base[2] = 200, 200, 50
        noise = rng.integers(0, 50, (96, 3, SIDE, SIDE))
        return Split((base[labels] + noise).astype(np.uint8), labels.astype(np.int64))


@pytest.fixture(scope="session")
def stripes() -> Stripes:
    return Stripes()


@pytest.fixture(scope="session")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that was trained for a moment, so that its logits, labels and statistics are those of a classifier."""
    folder = tmp_path_factory.mktemp("teacher")
    flags = {"epochs": 4, "batch_size": 16, "image_size": SIDE, "validation_samples": 9, "selection_steps": 1}
    recipe = resolve("natural", MODEL, None, {**flags, "learning_rate": 0.05, "augmentation": "none"})
    request = RunConfig(recipe, Stripes(), RunFolder(folder / "run"), torch.device("cpu"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPRESS_CACHE_DIR", str(folder / "cache"))
        return train(request, None, reporter=SilentReporter(), stop=StopRequest()).last


@pytest.fixture
def teacher(teacher_file: Path) -> LoadedCheckpoint:
    """The same, read anew: what one test moves to a device is no other's."""
    return load_checkpoint(teacher_file)


@pytest.fixture
def classifier(teacher: LoadedCheckpoint) -> nn.Module:
    """The trained network, on the CPU."""
    return teacher.classifier.eval()


@pytest.fixture(scope="session")
def pictures() -> tuple[Tensor, Tensor]:
    """Test images, uint8 ``[24, 3, 16, 16]``, and their labels."""
    split = Stripes().load("test")
    return torch.from_numpy(split.images[:24]), torch.from_numpy(split.labels[:24])


class StopsAfter(SilentReporter):
    """Asks to stop after some steps."""

    def __init__(self, stop: StopRequest, steps: int) -> None:
        self._stop, self._left = stop, steps

    def advance(self, done: int, total: int, detail: str = "") -> None:
        self._left -= 1
        if self._left == 0:
            self._stop.signum = 15


Run = Callable[..., Run]


@pytest.fixture
def run(tmp_path: Path, teacher_file: Path) -> Run:
    """Train: ``run(name, method, device, **recipe)``; ``stop_after`` interrupts, ``resume`` goes on."""

    def go(
        name: str, method: str, device: torch.device, *,
        resume: bool = False, stop_after: int = 0, extra: Path | None = None, **flags: Any,
    ) -> Run:  # fmt: skip
        common = {"epochs": 2, "batch_size": 16, "image_size": SIDE, "attack_steps": 2, "validation_samples": 9}
        common |= {"precision": "fp32", "selection_steps": 2, "learning_rate": 0.05, "train_samples": 48}
        recipe = resolve(method, MODEL, None, {**common, **flags})
        teacher = load_checkpoint(teacher_file) if recipe.build_method().teacher_at != "nothing" else None
        stop = StopRequest()
        reporter = StopsAfter(stop, stop_after) if stop_after else SilentReporter()
        request = RunConfig(recipe, Stripes(), RunFolder(tmp_path / name), device, resume, extra_data=extra)
        return train(request, teacher, reporter=reporter, stop=stop)

    return go


@pytest.fixture(scope="session")
def near() -> Callable[..., None]:
    """Hold logits, or what is like them, against the CPU's: to a part of their largest spread."""

    def check(found: Tensor, expected: Tensor, part: float = LOGITS) -> None:
        found, expected = found.detach().double().cpu(), expected.detach().double().cpu()
        assert found.shape == expected.shape
        scale = float((expected.max() - expected.min()).clamp_min(1e-12))
        assert float((found - expected).abs().max()) <= part * scale

    return check


@pytest.fixture(scope="session")
def agree() -> Callable[[Tensor, Tensor, Tensor], bool]:
    """Whether an attack says ``broken`` where the logits are wrong, ties aside: other batch sizes round otherwise."""

    def check(broken: Tensor, logits: Tensor, labels: Tensor) -> bool:
        broken, logits, labels = broken.cpu(), logits.detach().cpu(), labels.cpu()
        margin = cw_margin(logits, labels)
        is_tie = margin.abs() <= LOGITS * (logits.amax(1) - logits.amin(1))
        return bool(((broken == (margin > 0)) | is_tie).all())

    return check


@pytest.fixture
def fresh() -> Callable[[int], nn.Module]:
    """Untrained networks by seed, on the CPU."""
    return lambda seed: build_classifier(ModelSpec(MODEL, CLASSES, SIDE), seed=seed)


@pytest.fixture
def noise() -> Callable[..., Tensor]:
    """Uniform numbers ``[...]`` by seed, on the CPU."""
    return lambda seed, *shape: torch.rand(*shape, generator=make_generator(seed, "gpu tests"))


@pytest.fixture(scope="session")
def keep() -> Callable[[Path, nn.Module], LoadedCheckpoint]:
    """Save a classifier and read it."""

    def go(path: Path, model: nn.Module) -> LoadedCheckpoint:
        save_checkpoint(path, model, {})
        return load_checkpoint(path)

    return go
