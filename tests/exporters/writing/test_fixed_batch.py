"""Files of a fixed batch: no open size anywhere, the logits of the file of any batch, sealed and verified like it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

import exporters
from compressor.core.errors import ExportError, UsageError
from compressor.core.types import Threat
from exporters.artifact.latency import measure_latency
from exporters.artifact.mobile import mobile_usability
from exporters.artifact.sealing import ExportSettings, Provenance, seal
from exporters.model_file.runtime import open_session
from exporters.model_file.structure import Limits, check_structure, declared_layout_of
from exporters.precision.half import to_half
from exporters.precision.integer import to_int8
from exporters.writing.fixed_batch import LARGEST_BATCH, computed_shapes, with_fixed_batch
from exporters.writing.onnx import export_onnx, serialise

verify = partial(exporters.verify, isolate=False)

SIZE = 8
IMAGES = np.random.default_rng(1).random((7, 3, SIZE, SIZE), np.float32)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.stem, self.head = nn.Conv2d(3, 8, 3), nn.Linear(72, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.avg_pool2d(torch.relu(self.stem((x - 0.5) / 0.25)), 2)
        return self.head(x.reshape(x.shape[0], -1))


@pytest.fixture(scope="module")
def fp32() -> onnx.ModelProto:
    return export_onnx(Net().eval(), SIZE)


CONVERSIONS = {
    "fp32": lambda model: model,
    "fp16": lambda model: to_half(model, IMAGES).model,
    "int8": lambda model: to_int8(model, IMAGES),
}


@pytest.mark.parametrize("precision", CONVERSIONS)
@pytest.mark.parametrize("batch", [1, 4])
def test_every_shape_is_a_number_and_the_logits_stay(precision: str, batch: int, fp32: onnx.ModelProto) -> None:
    model = CONVERSIONS[precision](fp32)
    before = serialise(model)
    fixed = with_fixed_batch(model, batch)
    assert serialise(model) == before
    assert serialise(with_fixed_batch(model, batch)) == serialise(fixed)
    assert not any(None in (shape or [None]) for shape in computed_shapes(fixed).values())
    assert b"dim_param" not in str(fixed).encode()
    assert declared_layout_of(fixed).batch == batch
    check_structure(fixed, Limits(), file_bytes=len(serialise(fixed)))  # raises where a verifier would refuse it
    expected, logits = (open_session(serialise(each), threads=1)(IMAGES) for each in (model, fixed))
    np.testing.assert_allclose(logits, expected, rtol=1e-3 if precision == "fp16" else 1e-5, atol=1e-3)


def test_the_shapes_that_are_written_down_are_those_that_the_runtime_finds(fp32: onnx.ModelProto) -> None:
    fixed = with_fixed_batch(fp32, 4)
    shapes = computed_shapes(fixed)
    told = onnx.ModelProto()
    told.CopyFrom(fixed)
    del told.graph.output[1:]
    inner = [name for node in fixed.graph.node for name in node.output if name != "logits"]
    told.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inner)
    session = onnxruntime.InferenceSession(serialise(told), providers=["CPUExecutionProvider"])
    values = session.run(None, {"input": IMAGES[:4]})
    assert {name: value.shape for name, value in zip(["logits", *inner], values, strict=True)} == {
        name: shapes[name] for name in ("logits", *inner)
    }


def test_a_fixed_file_takes_no_other_batch(fp32: onnx.ModelProto) -> None:
    session = onnxruntime.InferenceSession(serialise(with_fixed_batch(fp32, 4)), providers=["CPUExecutionProvider"])
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
        session.run(None, {"input": IMAGES[:3]})


def test_accelerators_take_it_as_it_is(fp32: onnx.ModelProto) -> None:
    nnapi = mobile_usability(serialise(with_fixed_batch(fp32, 1))).accelerators["nnapi"]
    assert nnapi.with_fixed_batch is None
    assert nnapi.as_it_is.taken == nnapi.as_it_is.operators


def test_it_is_timed_at_its_own_batch(fp32: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporters.artifact.latency._SECONDS", 0.0)
    found = measure_latency({"any": serialise(fp32), "three": serialise(with_fixed_batch(fp32, 3))}, threads=1)
    assert {name: list(times) for name, times in found.items()} == {"any": [1, 64], "three": [3]}


@pytest.mark.parametrize("batch", [0, -1, LARGEST_BATCH + 1])
def test_batches_that_no_verifier_reads_are_refused(batch: int, fp32: onnx.ModelProto) -> None:
    with pytest.raises(UsageError, match=f"batch of {batch} "):
        with_fixed_batch(fp32, batch)


def test_a_shape_that_stays_open_is_refused() -> None:
    images = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, SIZE, SIZE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])
    nodes = [
        helper.make_node("NonZero", ["input"], ["where"]),  # as many as there are
        helper.make_node("Cast", ["where"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["real"], ["mean"], keepdims=0),
        helper.make_node("ReduceMean", ["input"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("Add", ["means", "mean"], ["logits"]),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [images], [logits]), opset_imports=[helper.make_opsetid("", 17)]
    )
    with pytest.raises(ExportError, match="'where'"):
        with_fixed_batch(model, 2)


@pytest.mark.parametrize("precision", CONVERSIONS)
def test_it_is_sealed_and_verified_like_any_other(
    precision: str, fp32: onnx.ModelProto, noise: Callable[[int, int], Any], tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    claims = []
    for model in (CONVERSIONS[precision](fp32), with_fixed_batch(CONVERSIONS[precision](fp32), 4)):
        provenance = Provenance(precision={"name": precision})
        sealed = seal(
            model,
            noise(21, SIZE),
            Threat("Linf", "1/255"),
            ExportSettings(samples=21, threads=1),
            provenance=provenance,
        )
        sealed.write(path)
        claims.append(sealed.claim)
    verdict = verify(path, seed=1, threads=1)
    assert declared_layout_of(onnx.load(path)).batch == 4
    assert {check.name: check.status for check in verdict.checks}["gradients"] == "passed"
    assert verdict.answer in ("holds", "undecided")  # of a network that was never trained, alarms may ring
    assert claims[0].clean_correct == claims[1].clean_correct > 0
    assert abs(claims[0].robust - claims[1].robust) <= 1
