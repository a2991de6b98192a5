"""Every opset that can be asked for: the logits of torch, the IR version that came with it, and valid ONNX."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn

import exporters
from compressor.core.errors import ExportError, UsageError
from compressor.core.types import ModelSpec, Threat
from compressor.models.classifier import build_classifier
from exporters.artifact.sealing import ExportSettings, Provenance, seal
from exporters.differentiable.graph import import_graph
from exporters.differentiable.logit_agreement import HALF_LOGIT_TOLERANCE, compare_logits, compare_predictions
from exporters.model_file.opset import EXPORTERS_OPSETS, OPSET, OPSETS, lower, match_ir_version, opset_of
from exporters.model_file.runtime import open_session
from exporters.model_file.structure import Limits, check_structure
from exporters.precision.half import to_half
from exporters.precision.integer import to_int8
from exporters.writing.onnx import check_parity, export_onnx, serialise

verify = partial(exporters.verify, isolate=False)

SIZE = 12
IMAGES = torch.rand(8, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
IR_VERSIONS = {13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9, 21: 10}  # from ONNX's table of releases


class Net(nn.Module):
    """Every operator whose meaning or spelling changed between the opsets."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.stem = nn.Conv2d(3, 8, 3)
            self.norm = nn.BatchNorm2d(8)
            self.norm.running_mean.normal_()
            self.norm.running_var.uniform_(0.5, 2)
            self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(torch.relu(self.stem((x - 0.5) / 0.25)))  # behind a ReLU it is not folded into the convolution
        first, second = torch.split(nn.functional.hardswish(x), [4, 4], dim=1)
        x = nn.functional.pad(first * torch.sigmoid(second) + second, (1, 0, 0, 2), value=0.5)
        return self.head(x.reshape(-1, 4, x.shape[2] * x.shape[3]).mean(2))


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return Net().eval()


@pytest.fixture(scope="module")
def exported(net: nn.Module) -> Callable[[int], onnx.ModelProto]:
    made: dict[int, onnx.ModelProto] = {}

    def export(opset: int) -> onnx.ModelProto:
        return made.get(opset) or made.setdefault(opset, export_onnx(net, SIZE, opset=opset))

    return export


def run(model: onnx.ModelProto) -> np.ndarray:
    return open_session(serialise(model), threads=1)(IMAGES.numpy())


def test_the_network_has_what_earlier_opsets_say_otherwise(exported: Callable[[int], onnx.ModelProto]) -> None:
    operators = {node.op_type for node in exported(18).graph.node}
    assert {"BatchNormalization", "HardSwish", "Pad", "ReduceMean", "Relu", "Reshape", "Split"} <= operators
    assert "HardSwish" not in {node.op_type for node in exported(13).graph.node}


@pytest.mark.parametrize("opset", OPSETS)
def test_the_file_is_of_the_opset_and_gives_the_logits_of_torch(
    opset: int, net: nn.Module, exported: Callable[[int], onnx.ModelProto]
) -> None:
    model = exported(opset)
    assert (opset_of(model), model.ir_version) == (opset, IR_VERSIONS[opset])
    assert check_parity(net, model, IMAGES).max_relative_error < 1e-5
    with torch.no_grad():
        expected = net(IMAGES).numpy()
        np.testing.assert_allclose(import_graph(model)(IMAGES).numpy(), expected, rtol=1e-4, atol=1e-5)
    if opset >= 14:  # onnx's reference takes every BatchNormalization of opset 9 for one that is being trained
        (reference,) = ReferenceEvaluator(model).run(None, {"input": IMAGES.numpy()})
        np.testing.assert_allclose(reference, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("opset", OPSETS)
def test_fewer_bits_keep_the_opset_and_nearly_the_logits(
    opset: int, exported: Callable[[int], onnx.ModelProto]
) -> None:
    model = exported(opset)
    half, int8 = to_half(model, IMAGES.numpy()).model, to_int8(model, IMAGES.numpy())
    for fewer in (half, int8):
        assert (opset_of(fewer), fewer.ir_version) == (opset, IR_VERSIONS[opset])
        check_structure(fewer, Limits(), file_bytes=len(serialise(fewer)))  # raises where a verifier would refuse it
        import_graph(fewer)
    assert compare_logits(run(model), run(half), HALF_LOGIT_TOLERANCE).passed
    assert compare_predictions(run(model), run(int8)).passed
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in int8.graph.node}


def test_the_default_is_20(net: nn.Module) -> None:
    assert opset_of(export_onnx(net, SIZE)) == OPSET == 20


@pytest.mark.parametrize("opset", [12, 22, 0, -1])
def test_other_opsets_are_refused_before_any_work(opset: int) -> None:
    with pytest.raises(UsageError, match=f"opset {opset} .* 13 to 21"):
        export_onnx(nn.Identity(), SIZE, opset=opset)


def test_an_exporter_that_stays_at_another_opset_is_found(monkeypatch: pytest.MonkeyPatch, net: nn.Module) -> None:
    export = torch.onnx.export
    monkeypatch.setattr(torch.onnx, "export", lambda *a, **k: export(*a, **{**k, "opset_version": 18}))
    with pytest.raises(ExportError, match="opset 19 was asked for"):
        export_onnx(net, SIZE, opset=19)


# What cannot be said in an earlier opset.


def graph_of(*nodes: onnx.NodeProto, shape: tuple[str | int, ...] = ("n", 64), **constants: object) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", EXPORTERS_OPSETS[0])])


@pytest.mark.parametrize(
    "model",
    [
        graph_of(helper.make_node("Mish", ["x"], ["y"])),
        graph_of(helper.make_node("ReduceMean", ["x"], ["y"])),
        graph_of(helper.make_node("ReduceMean", ["x", "a"], ["y"]), a=np.zeros(0, np.int64)),
        graph_of(helper.make_node("Pad", ["x", "p", "", "a"], ["y"]), p=np.array([1, 1]), a=np.array([3])),
        graph_of(helper.make_node("Reshape", ["x", "s"], ["y"], allowzero=1), s=np.array([0, 64])),
        graph_of(helper.make_node("Shape", ["x"], ["y"], end=1)),
        graph_of(helper.make_node("BatchNormalization", ["x", "s", "s", "s", "s"], ["y"], training_mode=1)),
    ],
    ids=lambda model: model.graph.node[0].op_type,
)
def test_what_an_earlier_opset_cannot_say_is_refused(model: onnx.ModelProto) -> None:
    with pytest.raises(ExportError, match=f"'{model.graph.node[0].op_type}'.*opset") as caught:
        lower(model, 13)
    assert "18" in str(caught.value.hint)


def test_sizes_of_zero_that_copy_need_no_attribute() -> None:
    model = graph_of(helper.make_node("Reshape", ["x", "s"], ["y"], allowzero=0), s=np.array([0, 64]))
    lower(model, 13)
    match_ir_version(model)
    onnx.checker.check_model(model)
    (y,) = ReferenceEvaluator(model).run(None, {"x": np.zeros((3, 4, 4, 4), np.float32)})
    assert y.shape == (3, 64)


@pytest.mark.parametrize(("parts", "is_valid"), [(2, True), (3, False)])
def test_equal_parts_need_no_count_and_unequal_ones_are_found(parts: int, is_valid: bool) -> None:
    names = ["y", *(f"y{number}" for number in range(1, parts))]
    split = helper.make_node("Split", ["x"], names, axis=1, num_outputs=parts)
    model = graph_of(split, shape=("n", 4 // parts, 4, 4))
    lower(model, 13)
    match_ir_version(model)
    if is_valid:
        onnx.checker.check_model(model, full_check=True)
        x = np.random.default_rng(0).random((2, 4, 4, 4), np.float32)
        np.testing.assert_array_equal(ReferenceEvaluator(model).run(None, {"x": x})[0], x[:, :2])
    else:
        with pytest.raises(onnx.shape_inference.InferenceError):
            onnx.checker.check_model(model, full_check=True)


def test_what_nothing_reads_any_more_is_left_out() -> None:
    model = graph_of(helper.make_node("ReduceMean", ["x", "a"], ["y"], keepdims=0), shape=("n", 4), a=np.array([2, 3]))
    lower(model, 13)
    match_ir_version(model)
    onnx.checker.check_model(model, full_check=True)
    assert not model.graph.initializer
    x = np.random.default_rng(0).random((2, 4, 4, 4), np.float32)
    np.testing.assert_allclose(ReferenceEvaluator(model).run(None, {"x": x})[0], x.mean((2, 3)), rtol=1e-6)


# Sealed and verified.


CONVERSIONS = {
    "fp32": lambda model: model,
    "fp16": lambda model: to_half(model, IMAGES.numpy()).model,
    "int8": lambda model: to_int8(model, IMAGES.numpy()),
}


@pytest.mark.parametrize("precision", CONVERSIONS)
@pytest.mark.parametrize("opset", [13, *(pytest.param(opset, marks=pytest.mark.slow) for opset in OPSETS[1:])])
def test_a_file_of_any_opset_and_precision_is_sealed_and_verified(
    opset: int,
    precision: str,
    exported: Callable[[int], onnx.ModelProto],
    noise: Callable[[int, int], Any],
    tmp_path: Path,
) -> None:
    model = CONVERSIONS[precision](exported(opset))
    sealed = seal(
        model,
        noise(24, SIZE),
        Threat("Linf", "1/255"),
        ExportSettings(samples=24, threads=1),
        provenance=Provenance(precision={"name": precision}),
    )
    path = tmp_path / "model.onnx"
    sealed.write(path)
    verdict = verify(path, seed=1, threads=1)
    assert sealed.claim.clean_correct > 0
    assert {check.name: check.status for check in verdict.checks}.get("gradients") == "passed"
    assert verdict.answer in ("holds", "undecided")  # of a network that was never trained, alarms may ring
    assert opset_of(onnx.load(path)) == opset


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenetv2-0.25", "resnet18"])
def test_the_students_families_are_the_same_in_every_opset(name: str) -> None:
    classifier = build_classifier(ModelSpec(name, 10), seed=0)
    x = torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    classifier.train()(x)  # statistics that are not the initial ones
    classifier.eval()
    for opset in OPSETS:
        model = export_onnx(classifier, 32, opset=opset)
        assert check_parity(classifier, model, x[:8]).max_relative_error < 1e-5
        logits = open_session(serialise(model), threads=1)(x[:8].numpy())
        half = open_session(serialise(to_half(model, x.numpy()).model), threads=1)(x[:8].numpy())
        assert compare_logits(logits, half, HALF_LOGIT_TOLERANCE).passed
        int8 = to_int8(model, x.numpy())
        import_graph(int8)
        assert compare_predictions(logits, open_session(serialise(int8), threads=1)(x[:8].numpy())).passed
