"""A device is what was asked for, or an error; never something else."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compressor.core.errors import MissingDeviceError, UsageError
from compressor.system.devices import full_float32, resolve_device, set_threads, uses_tf32


def test_names() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("tpu", "cpu:0", "cuda:x", ""):
        with pytest.raises(UsageError, match="not known"):
            resolve_device(name)


def test_an_absent_device_is_exit_2() -> None:
    with pytest.raises(MissingDeviceError, match="cuda:99") as caught:
        resolve_device("cuda:99")
    assert caught.value.exit_code == 2
    assert "--device cpu" in caught.value.hint


def test_threads_are_set() -> None:
    before = torch.get_num_threads()
    try:
        assert set_threads(1) == torch.get_num_threads() == 1
        with pytest.raises(UsageError):
            set_threads(0)
    finally:
        torch.set_num_threads(before)


def switches() -> dict[str, Any]:
    """Every switch of PyTorch that says how float32 is computed, the older ones too."""
    backends = {
        "cudnn.conv": torch.backends.cudnn.conv,
        "cudnn.rnn": torch.backends.cudnn.rnn,
        "cuda.matmul": torch.backends.cuda.matmul,
        "mkldnn.conv": torch.backends.mkldnn.conv,
        "mkldnn.rnn": torch.backends.mkldnn.rnn,
        "mkldnn.matmul": torch.backends.mkldnn.matmul,
    }
    return {name: backend.fp32_precision for name, backend in backends.items()} | {
        "products": torch.get_float32_matmul_precision(),
        "cudnn.allow_tf32": torch.backends.cudnn.allow_tf32,
        "matmul.allow_tf32": torch.backends.cuda.matmul.allow_tf32,
    }


EXACT = {
    "cudnn.conv": "ieee", "cudnn.rnn": "ieee", "cuda.matmul": "ieee",
    "mkldnn.conv": "ieee", "mkldnn.rnn": "ieee", "mkldnn.matmul": "ieee",
    "products": "highest", "cudnn.allow_tf32": False, "matmul.allow_tf32": False,
}  # fmt: skip


@pytest.fixture
def own_switches() -> Iterator[None]:
    """The test may set what it likes."""
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(products)
    torch.backends.cudnn.allow_tf32 = convolutions


@pytest.mark.parametrize("products", ["highest", "high", "medium"])
@pytest.mark.parametrize("convolutions", [True, False])
@pytest.mark.usefixtures("own_switches")
def test_full_float32_sets_every_switch_and_puts_it_back(products: str, convolutions: bool) -> None:
    torch.set_float32_matmul_precision(products)
    torch.backends.cudnn.allow_tf32 = convolutions
    before = switches()
    with full_float32():
        assert switches() == EXACT
        with full_float32():
            assert switches() == EXACT
        assert switches() == EXACT
    assert switches() == before
    with pytest.raises(ZeroDivisionError), full_float32():
        raise ZeroDivisionError
    assert switches() == before


@pytest.mark.usefixtures("own_switches")
def test_switches_that_contradict_each_other_are_no_trouble() -> None:
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    with pytest.raises(RuntimeError):
        _ = torch.backends.cudnn.allow_tf32
    with full_float32():
        assert switches() == EXACT
    assert torch.backends.cudnn.conv.fp32_precision == "ieee"
    torch.backends.cudnn.conv.fp32_precision = "tf32"


def test_no_cpu_computes_in_tf32() -> None:
    assert not uses_tf32(torch.device("cpu"))


class Witness(nn.Module):
    """Notes the switches whenever it is asked for logits."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.seen: list[dict[str, Any]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(switches())
        lead = self.scale * (x.mean((1, 2, 3)) - 0.5)
        return torch.stack([-lead, lead], dim=1)


@pytest.mark.usefixtures("own_switches")
def test_what_decides_asks_its_model_in_full_float32() -> None:
    from compressor.core.types import Threat
    from compressor.evaluation.evaluate import evaluate
    from compressor.evaluation.quick import measure
    from compressor.evaluation.suites import get_suite
    from compressor.training.teaching.teacher import FrozenTeacher

    torch.set_float32_matmul_precision("high")
    before = switches()
    images = np.arange(0, 250, 25, dtype=np.uint8).reshape(-1, 1, 1, 1).repeat(3, 1).repeat(4, 2).repeat(4, 3)
    labels = (images[:, 0, 0, 0] > 127).astype(np.int64)
    cpu, threat, model = torch.device("cpu"), Threat("Linf", "0.01"), Witness()

    evaluate(model, images, labels, threat, get_suite("quick"), seed=0)
    evaluated = len(model.seen)
    measure(model, torch.from_numpy(images), torch.from_numpy(labels), threat, steps=1, seed=0, device=cpu)
    measured = len(model.seen)
    teacher = FrozenTeacher(model)
    teacher.soft_labels(torch.rand(2, 3, 4, 4))
    assert 0 < evaluated < measured < len(model.seen)
    assert all(seen == EXACT for seen in model.seen)

    teacher(torch.rand(2, 3, 4, 4))  # in the midst of an outer step: as the user has set it
    assert model.seen[-1] == before
    assert switches() == before


def test_every_place_that_decides_is_marked() -> None:
    """The list of the decision record, so that none of them loses its decorator unnoticed."""
    root = Path(__file__).parents[2]
    places = {
        "compressor/evaluation/evaluate.py": {"evaluate", "estimate_autoattack_seconds"},
        "compressor/evaluation/quick.py": {"measure"},
        "compressor/training/teaching/teacher.py": {"soft_labels"},
        "compressor/checkpoint/probing.py": {"probe"},
        "compressor/attack_report/subject.py": {"draw_sample"},
        "compressor/attack_report/examination.py": {"measure_findings"},
        "exporters/writing/onnx.py": {"check_parity"},
        "exporters/differentiable/logit_agreement.py": {"compare_with_onnxruntime"},
        "exporters/differentiable/attackable.py": {"open_attackable"},
        "exporters/verification/examination.py": {"examine"},
        "compressor/frozen/twin.py": {"_try_folding"},
    }
    for path, names in places.items():
        tree = ast.parse((root / path).read_text(encoding="utf-8"))
        marked = {
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and "full_float32()" in map(ast.unparse, node.decorator_list)
        }
        assert marked == names, path
