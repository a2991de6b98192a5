"""Every operator of the importer, in every version that it knows, against onnxruntime and finite differences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from compressor.core.errors import UnreadableModelError, UnsupportedOperatorError
from exporters.differentiable.graph import import_graph, operators_with_gradients
from exporters.differentiable.operators import _sizes
from exporters.differentiable.registry import blocks_gradient, saturates

VERSIONS = {operator.name: operator.versions for operator in operators_with_gradients()}
X = object()
"""Stands for the value under test among the inputs of a case."""
SHAPE = (2, 4, 6, 5)
FAR = (1 << 63) - 1


def normal(*shape: int, seed: int = 7) -> np.ndarray:
    return np.random.default_rng(seed + sum(shape)).normal(size=shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.asarray(values, dtype=np.int64)


def real(*values: float) -> np.ndarray:
    return np.asarray(values if len(values) > 1 else values[0], dtype=np.float32)


@dataclass(frozen=True)
class Case:
    """One node; ``inputs`` holds X once, constants, and None for what is left out."""

    op: str
    inputs: tuple[Any, ...]
    attributes: dict[str, Any]
    x: np.ndarray
    since: int = 0
    until: int = 99

    def __str__(self) -> str:
        given = [f"{key}={value}" for key, value in self.attributes.items()]
        return "-".join([self.op, str(len(self.inputs)), *given, "x".join(map(str, self.x.shape))])[:80]


def case(
    op: str, *inputs: Any, x: np.ndarray | None = None, since: int = 0, until: int = 99, **attributes: Any
) -> Case:
    return Case(op, inputs or (X,), attributes, normal(*SHAPE) if x is None else x, since, until)


POSITIVE = np.abs(normal(*SHAPE)) + np.float32(0.3)
VECTOR, WEIGHT, LONG = normal(4), normal(6, 4, 3, 2), normal(2, 4, 9)
STATISTICS = (normal(4), normal(4, seed=1), normal(4, seed=2), np.abs(normal(4)) + np.float32(0.5))
WHOLE = np.asarray([[-7, 7, 0], [5, -5, 9]], dtype=np.int64)
TRUE = np.asarray([[True, False, True], [False, False, True]])
MASK = normal(6, 5) > 0


def reductions() -> list[Case]:
    cases = []
    for name in ("Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSumExp", "Sum"):
        first = 13 if name == "Sum" else 18
        op, x = f"Reduce{name}", normal(2, 3, 4, 2)
        cases += [
            case(op, x=x, keepdims=0),
            case(op, x=x, until=first - 1, axes=[-1, 1], keepdims=0),
            case(op, x=x, until=first - 1, axes=[2]),
            case(op, X, ints(-1, 1), x=x, since=first, keepdims=0),
            case(op, X, ints(2), x=x, since=first),
            case(op, X, ints(), x=x, since=first),
        ]
        if name not in ("L1", "L2", "SumSquare", "LogSumExp"):
            cases.append(case(op, X, ints(), x=x, since=first, noop_with_empty_axes=1))
    return [*cases, case("ReduceSum", X, ints(0), x=WHOLE, since=13), case("ReduceProd", x=ints(2, 3, 7), keepdims=0)]


def resizes() -> list[Case]:
    cases = []
    x = normal(1, 2, 5, 4)
    up, down = real(1, 1, 2, 2), real(1, 1, 0.6, 0.5)
    for how in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"):
        for nearest in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
            for scales in (up, down):
                more = {"coordinate_transformation_mode": how, "nearest_mode": nearest}
                cases.append(case("Resize", X, real(0, 0)[:0], scales, x=x, mode="nearest", **more))
        for mode in ("linear", "cubic"):
            more = {"coordinate_transformation_mode": how, "mode": mode}
            cases += [case("Resize", X, real(0, 0)[:0], scales, x=x, **more) for scales in (up, down)]
            cases.append(case("Resize", X, None, None, ints(1, 2, 7, 3), x=x, since=13, **more))
            cases.append(case("Resize", X, None, None, ints(1, 2, 1, 1), x=x, since=13, **more))
    cases.append(case("Resize", X, None, real(1.5, 2), x=x, since=18, axes=[2, 3], mode="linear"))
    cases.append(case("Resize", X, None, None, ints(3, 9), x=x, since=18, axes=[-2, 3]))
    symmetric = {"coordinate_transformation_mode": "half_pixel_symmetric", "mode": "linear"}
    cases.append(case("Resize", X, None, real(1, 1, 1.3, 1.7), x=x, since=19, **symmetric))
    return cases


CASES: list[Case] = [
    # arithmetic
    *(case(op, X, normal(4, 1, 5)) for op in ("Add", "Sub", "Mul")),
    case("Div", X, POSITIVE),
    case("Div", ints(9), X, x=WHOLE + (WHOLE == 0)),
    case("Div", X, ints(2), x=WHOLE),
    case("Mod", X, ints(3), x=WHOLE),
    case("Mod", X, ints(-4, 3, 2), x=WHOLE),
    case("Mod", X, ints(3), x=WHOLE, fmod=1),
    case("Mod", X, real(0.7), fmod=1),
    case("Pow", X, real(2)),
    case("Pow", X, real(0.5), x=POSITIVE),
    case("Pow", X, ints(3)[0], since=12),
    case("Pow", real(2), X),
    *(case(op, X, normal(4, 6, 1), normal(5)) for op in ("Sum", "Mean", "Max", "Min")),
    *(case(op) for op in ("Sum", "Mean", "Max", "Min")),
    case("Max", X, ints(0), x=WHOLE, since=12),
    # functions of one value
    *(case(op) for op in ("Abs", "Neg", "Exp", "Sin", "Cos", "Tanh", "Erf")),
    *(case(op, x=POSITIVE) for op in ("Reciprocal", "Sqrt", "Log")),
    case("Neg", x=WHOLE),
    # activations
    *(case(op) for op in ("Relu", "LeakyRelu", "ThresholdedRelu", "Elu", "Selu", "Celu", "Sigmoid", "Softplus")),
    *(case(op) for op in ("Softsign", "Mish", "Swish", "Gelu", "HardSigmoid", "HardSwish", "Softmax", "LogSoftmax")),
    *(case(op, alpha=0.3) for op in ("LeakyRelu", "ThresholdedRelu", "Elu", "Celu", "Swish")),
    case("Elu", x=100 * normal(*SHAPE)),
    case("Softplus", x=20 * normal(*SHAPE)),
    case("Selu", alpha=1.2, gamma=0.7),
    case("PRelu", X, normal(4, 1, 1)),
    case("PRelu", X, real(0.2)),
    case("Gelu", approximate="tanh"),
    case("HardSigmoid", alpha=0.4, beta=0.3),
    case("Softmax", axis=1),
    case("LogSoftmax", axis=-2),
    case("Clip", X, real(-0.3), real(0.6)),
    case("Clip", X, None, real(0.6)),
    case("Clip"),
    # rounding
    *(case(op, x=3 * normal(*SHAPE)) for op in ("Round", "Floor", "Ceil", "Sign")),
    case("Round", x=np.arange(-6, 7, dtype=np.float32) / 2),
    *(case("Cast", x=WHOLE, to=to) for to in (TensorProto.FLOAT, TensorProto.INT32, TensorProto.BOOL)),
    case("Cast", to=TensorProto.BOOL, x=np.round(normal(*SHAPE))),
    case("Cast", to=TensorProto.FLOAT, x=TRUE),
    case("CastLike", X, normal(1), x=WHOLE),
    case("CastLike", X, TRUE),
    # logic
    *(case(op, X, ints(5, -5, 0), x=WHOLE) for op in ("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual")),
    *(case(op, X, normal(6, 1)) for op in ("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual")),
    *(case(op, X, TRUE[0], x=TRUE) for op in ("And", "Or", "Xor")),
    case("Not", x=TRUE),
    case("IsNaN", x=real(1, np.nan, np.inf)),
    *(case(op, axis=axis, keepdims=keep) for op in ("ArgMax", "ArgMin") for axis, keep in ((1, 0), (-1, 1))),
    case("ArgMax", x=real(1, 3, 3)),
    case("Where", MASK, X, normal(4, 1, 1)),
    case("Where", MASK, real(-9), X),
    # matrices
    case("Gemm", X, normal(5, 3), normal(3), x=normal(4, 5)),
    case("Gemm", X, normal(3, 4), x=normal(4, 5), transA=1, transB=1, alpha=0.5, since=11),
    case("MatMul", X, normal(4, 5, 3)),
    case("MatMul", normal(6), X),
    case("Attention", X, normal(2, 4, 7, 5), normal(2, 4, 7, 3)),
    case("Attention", normal(2, 4, 3, 5), X, normal(2, 4, 6, 2), normal(3, 6), scale=0.4),
    case("Attention", normal(2, 4, 3, 5), normal(2, 4, 6, 5), X, normal(3, 6) > -1),
    case("Einsum", X, normal(5, 3), equation="bchw, wk -> bhk"),
    case("Einsum", X, normal(2, 4, 5), equation="...hw,...w->...h"),
    # windows
    case("Conv", X, WEIGHT, normal(6), pads=[1, 0, 2, 1], strides=[2, 1], kernel_shape=[3, 2]),
    case("Conv", X, normal(6, 2, 3, 3), group=2, dilations=[2, 1], pads=[2, 1, 2, 1]),
    case("Conv", X, WEIGHT, auto_pad="SAME_UPPER", strides=[2, 2]),
    case("Conv", X, WEIGHT, auto_pad="SAME_LOWER"),
    case("Conv", X, normal(3, 4, 3), normal(3), x=LONG, pads=[0, 2], strides=[2], kernel_shape=[3]),
    case("ConvTranspose", X, normal(4, 3, 3, 2), normal(3), strides=[2, 3], kernel_shape=[3, 2]),
    case("ConvTranspose", X, normal(4, 3, 3, 3), pads=[1, 0, 2, 1], strides=[2, 2], output_padding=[1, 0]),
    case("ConvTranspose", X, normal(4, 2, 3, 3), group=2, dilations=[2, 1], pads=[1, 1, 1, 1]),
    case("ConvTranspose", X, normal(4, 3, 3), x=LONG, strides=[2], pads=[1, 1], output_padding=[1]),
    case("AveragePool", kernel_shape=[3, 2], pads=[1, 0, 2, 1], strides=[2, 1]),
    case("AveragePool", kernel_shape=[3, 2], pads=[1, 0, 2, 1], count_include_pad=1),
    case("AveragePool", kernel_shape=[3, 3], auto_pad="SAME_UPPER", strides=[2, 2]),
    case("AveragePool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, since=10),
    case("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1, since=10),
    case("AveragePool", kernel_shape=[3], x=LONG, pads=[1, 1], strides=[2]),
    case("MaxPool", kernel_shape=[3, 2], pads=[1, 0, 2, 1], strides=[2, 1]),
    case("MaxPool", kernel_shape=[3, 3], auto_pad="SAME_LOWER", strides=[2, 2]),
    case("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, since=10),
    case("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1, since=10),
    case("MaxPool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], ceil_mode=1, since=10),
    case("MaxPool", kernel_shape=[2, 2], strides=[3, 3], ceil_mode=1, since=10),
    case("MaxPool", kernel_shape=[2, 3], dilations=[2, 2], pads=[1, 1, 0, 2], since=10),
    case("MaxPool", kernel_shape=[2], x=LONG, strides=[2]),
    *(case(op) for op in ("GlobalAveragePool", "GlobalMaxPool")),
    case("GlobalMaxPool", x=LONG),
    # normalisation
    case("BatchNormalization", X, *STATISTICS, epsilon=1e-3),
    case("BatchNormalization", X, *STATISTICS, x=normal(3, 4), momentum=0.1),
    case("LayerNormalization", X, normal(5), normal(5)),
    case("LayerNormalization", X, normal(6, 5), axis=2, epsilon=0.1),
    case("RMSNormalization", X, normal(5), epsilon=1e-3),
    case("InstanceNormalization", X, VECTOR, normal(4, seed=1), epsilon=1e-3),
    case("InstanceNormalization", X, VECTOR, normal(4, seed=1), x=LONG),
    case("GroupNormalization", X, normal(2), normal(2, seed=1), num_groups=2, until=20),
    case("GroupNormalization", X, normal(4), normal(4, seed=1), num_groups=2, since=21),
    case("LRN", size=3),
    case("LRN", size=1, alpha=0.5, beta=0.6, bias=2.0),
    case("LRN", size=9, alpha=0.5),
    *(case("LpNormalization", axis=axis, p=p) for axis, p in ((1, 1), (-1, 2))),
    *reductions(),
    # sizes that the graph chooses
    case("ConstantOfShape", x=ints(2, 0, 3)),
    case("ConstantOfShape", x=ints(), value=numpy_helper.from_array(ints(7))),
    case("Range", ints(2)[0], X, ints(3)[0], x=np.asarray(9)),
    case("Range", X, ints(-6)[0], ints(-4)[0], x=np.asarray(9)),
    case("Range", real(0), X, real(0.3), x=real(1)),
    case("Range", X, ints(1)[0], ints(1)[0], x=np.asarray(9)),
    case("Expand", X, ints(3, 1, 4, 2, 1), x=normal(1, 4, 1, 5)),
    case("Expand", X, ints(4, 1), x=normal(2, 1, 5)),
    case("Tile", X, ints(1, 2, 1, 3)),
    case("Shape", x=normal(3, 0, 2)),
    case("Shape", start=-2, since=15),
    case("Shape", start=1, end=-1, since=15),
    case("Size"),
    # positions
    case("Slice", X, ints(1, -3), ints(FAR, -1), ints(2, -1)),
    case("Slice", X, ints(0, 0, 1, 0), ints(2, 3, 6, 5), None, ints(1, 2, 3, 1)),
    case("Slice", X, ints(-1, 4), ints(-FAR, 1), ints(1, 2), ints(-1, -2)),
    case("Slice", X, ints(3), ints(1), ints(2)),
    case("Gather", X, np.asarray([[0, -1], [2, 2]]), axis=2),
    case("Gather", X, ints(1)[0], axis=-1),
    case("GatherElements", X, np.asarray([[0, -1, 2], [3, 1, 0]])[:, :, None, None].repeat(5, 3), axis=1),
    case("GatherND", X, np.asarray([[0, -1], [1, 2]])),
    case("GatherND", X, np.asarray([[[2], [0]], [[-1], [1]]]), batch_dims=1),
    case("ScatterND", X, np.asarray([[0, 2], [-1, 0]]), normal(2, 6, 5)),
    case("ScatterND", X, np.asarray([[[1], [0]]]), normal(1, 2, 4, 6, 5)),
    case("Split", x=normal(2, 6), axis=1, until=17),
    case("Split", x=normal(2, 6), axis=-1, until=12, split=[1, 5]),
    case("Split", X, ints(1, 5), x=normal(2, 6), axis=-1, since=13),
    case("Split", x=normal(2, 5), axis=1, num_outputs=2, since=18),
    *(case("Trilu", X, *k, upper=upper) for k in ((), (ints(-1)[0],), (ints(2)[0],)) for upper in (0, 1)),
    # shapes
    case("Identity"),
    *(case("Dropout", *more, since=since) for more, since in (((X,), 0), ((X, real(0.5), np.asarray(False)), 12))),
    case("Reshape", X, ints(0, -1, 10)),
    case("Reshape", X, ints(8, 30), allowzero=1, since=14),
    case("Flatten", axis=2),
    case("Flatten", axis=-1, since=11),
    case("Transpose"),
    case("Transpose", perm=[0, 2, 3, 1]),
    case("Concat", X, normal(2, 1, 6, 5), X, axis=-3, since=11),
    case("Concat", X, normal(2, 4, 6, 2), axis=3),
    case("Squeeze", X, ints(-3, 0), x=normal(1, 1, 3, 1), since=13),
    case("Squeeze", x=normal(1, 1, 3, 1), until=12, axes=[0, -1]),
    case("Squeeze", x=normal(1, 3, 1)),
    case("Unsqueeze", X, ints(-1, 0), since=13),
    case("Unsqueeze", until=12, axes=[0, -1]),
    case("Pad", X, ints(0, 0, 1, 0, 0, 0, 0, 2)),
    case("Pad", X, ints(0, 0, -1, 0, 1, 0, 0, 2), real(1.5)),
    case("Pad", X, ints(1, 1), ints(7)[0], x=ints(3, 4)),
    case("Pad", X, ints(1, 0, 2, 3), None, ints(-1, 1), since=18),
    *(case("Pad", X, ints(0, 2, 1, 3, 1, 3, 0, 4), mode=mode) for mode in ("reflect", "edge")),
    case("Pad", X, ints(0, 2, 1, 3, 1, 3, 0, 4), mode="wrap", since=19),
    case("Pad", X, ints(2, 0, 1, 3), None, ints(1, -1), mode="edge", since=18),
    *resizes(),
    *(case("DepthToSpace", x=normal(2, 8, 3, 2), blocksize=2, mode=mode) for mode in ("DCR", "CRD")),
    case("SpaceToDepth", x=normal(2, 3, 6, 4), blocksize=2),
]
"""The quantisers have their own tests, in test_quantizing.py."""


def versions_of(one: Case) -> list[int]:
    return [version for version in VERSIONS[one.op] if one.since <= version <= one.until]


def model_of(one: Case, opset: int) -> onnx.ModelProto:
    names, constants = [], []
    for position, value in enumerate(one.inputs):
        if value is X or value is None:
            names.append("x" if value is X else "")
        else:
            names.append(f"c{position}")
            constants.append(numpy_helper.from_array(value, names[-1]))
    outputs = ["y", "y1"] if one.op == "Split" else ["y"]
    element = helper.np_dtype_to_tensor_dtype(one.x.dtype)
    graph = helper.make_graph(
        [helper.make_node(one.op, names, outputs, name="it", **one.attributes)],
        "g",
        [helper.make_tensor_value_info("x", element, one.x.shape)],
        [helper.make_empty_tensor_value_info("y")],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def expected_of(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """By onnxruntime, and by the definitions in Python where it has not implemented this version."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
        return np.asarray(onnx.reference.ReferenceEvaluator(model).run(None, {"x": x})[0])
    return np.asarray(session.run(["y"], {"x": x})[0])


@pytest.mark.parametrize("one", CASES, ids=str)
def test_every_version_of_an_operator_gives_the_values_of_onnxruntime(one):
    versions = versions_of(one)
    assert versions
    for version in versions:
        model = model_of(one, version)
        expected = expected_of(model, one.x)
        actual = import_graph(model)(torch.from_numpy(one.x)).numpy()
        assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype), version
        np.testing.assert_allclose(actual, expected, rtol=2e-6, atol=2e-5, err_msg=str(version))


WITHOUT_A_TRUE_GRADIENT = {"Round", "Floor", "Ceil", "Sign", "Cast", "CastLike"}
SMOOTH = [
    one
    for one in CASES
    if one.x.dtype == np.float32
    and not blocks_gradient(one.op)
    and one.op not in WITHOUT_A_TRUE_GRADIENT
    and one.x.size > 1
]


@pytest.mark.parametrize("one", SMOOTH, ids=str)
def test_an_operator_has_the_gradient_of_finite_differences(one):
    graph = import_graph(model_of(one, versions_of(one)[-1])).double()
    x = torch.from_numpy(one.x).double().requires_grad_()
    assert torch.autograd.gradcheck(graph, (x,), eps=1e-7, atol=1e-5, fast_mode=True)


def test_every_operator_in_every_version_is_tested():
    tested = {(one.op, version) for one in CASES for version in versions_of(one)}
    known = {(op, version) for op, versions in VERSIONS.items() for version in versions}
    elsewhere = {(op, version) for op, version in known if op in ("QuantizeLinear", "DequantizeLinear")}
    assert known - tested == elsewhere


def graph_of(
    nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray] | None = None, *, opset: int = 20
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


# What carries no gradient


def test_logits_that_no_gradient_reaches_have_a_gradient_of_zero():
    for through in (
        [node("Greater", "x zero", "b"), node("Cast", "b", "y", to=TensorProto.FLOAT)],
        [node("ArgMax", "x", "i"), node("Cast", "i", "y", to=TensorProto.FLOAT)],
        [node("Shape", "x", "n"), node("Cast", "n", "y", to=TensorProto.FLOAT)],
    ):
        model = graph_of(through, {"zero": real(0)})
        x = torch.from_numpy(normal(3, 4)).requires_grad_()
        y = import_graph(model)(x)
        np.testing.assert_array_equal(y.detach().numpy(), expected_of(model, x.detach().numpy()))
        (gradient,) = torch.autograd.grad(y.sum(), x)
        assert torch.equal(gradient, torch.zeros_like(x))


def test_a_condition_is_exact_and_the_gradient_is_that_of_the_value_chosen():
    nodes = [node("Greater", "x zero", "b"), node("Mul", "x two", "d"), node("Where", "b d x", "y")]
    model = graph_of(nodes, {"zero": real(0), "two": real(2)})
    for straight_through in (False, True):
        x = torch.from_numpy(normal(3, 4)).requires_grad_()
        y = import_graph(model, straight_through=straight_through)(x)
        np.testing.assert_array_equal(y.detach().numpy(), expected_of(model, x.detach().numpy()))
        (gradient,) = torch.autograd.grad(y.sum(), x)
        assert torch.equal(gradient, torch.where(x > 0, 2.0, 1.0))


BOUNDED = {
    "Min": [node("Min", "x half", "y")],
    "Max": [node("Max", "half x", "y")],
    "Min of Max": [node("Max", "x zero", "m"), node("Min", "m half", "y")],
    "Where": [node("Less", "x half", "b"), node("Where", "b x half", "y")],
}


@pytest.mark.parametrize("name", BOUNDED)
def test_a_bound_by_a_constant_masks_the_gradient_unless_asked_otherwise(name):
    model = graph_of(BOUNDED[name], {"half": real(0.5), "zero": real(0)})
    gradients = []
    for straight_through in (False, True):
        graph = import_graph(model, straight_through=straight_through)
        assert graph.saturates
        x = torch.from_numpy(normal(5, 4)).requires_grad_()
        y = graph(x)
        np.testing.assert_array_equal(y.detach().numpy(), expected_of(model, x.detach().numpy()))
        gradients.append(torch.autograd.grad(y.sum(), x)[0])
    assert 0 < gradients[0].mean() < 1
    assert torch.equal(gradients[0], (y == x).float())
    assert torch.equal(gradients[1], torch.ones_like(x))


def test_two_values_of_the_image_keep_their_own_gradient_where_one_is_chosen():
    model = graph_of([node("Neg", "x", "n"), node("Max", "x n", "y")])
    x = torch.from_numpy(normal(5, 4)).requires_grad_()
    (gradient,) = torch.autograd.grad(import_graph(model, straight_through=True)(x).sum(), x)
    assert torch.equal(gradient, x.sign())


def test_only_graphs_that_saturate_say_so():
    assert saturates("Clip")
    assert not import_graph(graph_of([node("Relu", "x", "y")])).saturates


def test_integers_made_of_the_image_s_values_are_computed_with_as_integers_and_keep_their_gradient():
    nodes = [
        node("Mul", "x eight", "e"),
        node("Cast", "e", "i", to=TensorProto.INT64),
        node("Add", "i one", "j"),
        node("Div", "j two", "k"),
        node("Concat", "k two4", "l", axis=0),
        node("Greater", "l one", "b"),
        node("Where", "b l one", "m"),
        node("Cast", "m", "y", to=TensorProto.FLOAT),
    ]
    constants = {"eight": real(8), "one": ints(1)[0], "two": ints(2)[0], "two4": np.full((1, 4), 2)}
    model = graph_of(nodes, constants)
    x = torch.from_numpy(3 * normal(6, 4)).requires_grad_()
    y = import_graph(model)(x)
    np.testing.assert_array_equal(y.detach().numpy(), expected_of(model, x.detach().numpy()))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient, 4.0 * (y[:-1] > 1))


# Shapes


def test_integers_that_are_computed_from_sizes_follow_the_batch():
    """As older exporters write it: sizes through floats and back, a shape with -1, and a repeated class token."""
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n", axis=0),
        node("Unsqueeze", "n at", "batch"),
        node("Cast", "n", "f", to=TensorProto.FLOAT),
        node("Mul", "f half", "h"),
        node("Ceil", "h", "c"),
        node("Cast", "c", "k", to=TensorProto.INT64),
        node("Add", "k one", "k1"),
        node("Unsqueeze", "k1 at", "rows"),
        node("Concat", "minus batch rows", "wanted", axis=0),
        node("ConstantOfShape", "three", "ones", value=numpy_helper.from_array(ints(1))),
        node("Equal", "wanted minus", "b"),
        node("Where", "b ones wanted", "shape"),
        node("Expand", "token shape", "e"),
        node("ReduceSum", "e axes", "r", keepdims=0),
        node("Add", "x r", "y"),
    ]
    constants = {"zero": ints(0)[0], "at": ints(0), "half": real(0.5), "one": ints(1)[0], "minus": ints(-1)}
    constants |= {"three": ints(3), "token": np.full((1, 1, 1), 0.25, np.float32), "axes": ints(0, 1, 2)}
    model = graph_of(nodes, constants)
    graph = import_graph(model)
    for batch in (1, 2, 5):
        x = normal(batch, 4)
        np.testing.assert_array_equal(graph(torch.from_numpy(x)).numpy(), expected_of(model, x))


# What is refused


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("Attention", {"is_causal": 1}),
        ("Attention", {"softcap": 1.5}),
        ("AveragePool", {"kernel_shape": [2, 2], "dilations": [2, 2]}),
        ("AveragePool", {"kernel_shape": [2, 2, 2]}),
        ("Conv", {"pads": [1 << 40, 0, 0, 0]}),
        ("ConvTranspose", {"output_shape": [9, 9]}),
        ("ConvTranspose", {"auto_pad": "SAME_UPPER"}),
        ("Dropout", {"ratio": 0.5}),
        ("Gelu", {"approximate": "guess"}),
        ("LRN", {"size": 2}),
        ("LayerNormalization", {"stash_type": 10}),
        ("LpNormalization", {"p": 3}),
        ("ArgMax", {"select_last_index": 1}),
        ("MaxPool", {"kernel_shape": [2, 2], "storage_order": 1}),
        ("Pad", {"mode": "guess"}),
        ("ReduceL2", {"noop_with_empty_axes": 1}),
        ("ReduceSum", {"axes": [1]}),
        ("Resize", {"antialias": 1}),
        ("Resize", {"coordinate_transformation_mode": "tf_crop_and_resize"}),
        ("Resize", {"exclude_outside": 1}),
        ("Resize", {"keep_aspect_ratio_policy": "not_larger"}),
        ("ScatterND", {"reduction": "add"}),
    ],
)
def test_an_attribute_that_is_not_implemented_is_refused(op, attributes):
    one = next(one for one in CASES if one.op == op and one.until == 99)
    with pytest.raises(UnsupportedOperatorError, match=f"'{op}'"):
        import_graph(model_of(Case(op, one.inputs, attributes, one.x), 23 if op == "Attention" else 20))


@pytest.mark.parametrize(
    "one",
    [
        case("Dropout", X, real(0.5), np.asarray(True)),  # which would be random
        case("Range", ints(0)[0], X, ints(0)[0], x=np.asarray(3)),
        case("DepthToSpace", blocksize=0),
        case("Reshape", X, None),
        case("Conv", X, WEIGHT, auto_pad="SAME_UPPER", dilations=[1 << 40, 1]),
        case("MaxPool", kernel_shape=[1 << 40, 2], ceil_mode=1),
        case("GatherND", X, np.zeros((1, 9), np.int64)),
        case("Where", real(1), X, real(2)),
    ],
    ids=str,
)
def test_values_that_make_no_sense_are_a_plain_error(one):
    with pytest.raises(UnreadableModelError, match="'it'"):
        import_graph(model_of(one, 20))(torch.from_numpy(one.x))


LARGE = 1 << 40
GREEDY = {
    "ConstantOfShape": case("ConstantOfShape", x=ints(LARGE)),
    "Range": case("Range", ints(0)[0], X, ints(1)[0], x=np.asarray(LARGE)),
    "Expand": case("Expand", X, ints(LARGE, 1, 1, 1, 1)),
    "Tile": case("Tile", X, ints(1, LARGE, 1, 1)),
    "Pad": case("Pad", X, ints(0, 0, LARGE, 0, 0, 0, 0, 0)),
    "Pad, the edge": case("Pad", X, ints(0, 0, LARGE, 0, 0, 0, 0, 0), mode="edge"),
    "Resize by scales": case("Resize", X, None, real(1, 1, 1e9, 1)),
    "Resize by sizes": case("Resize", X, None, None, ints(2, 4, LARGE, 5)),
    "ConvTranspose": case("ConvTranspose", X, WEIGHT[:4], strides=[LARGE, 1]),
    "LRN": case("LRN", size=LARGE + 1),
}


@pytest.mark.parametrize("name", GREEDY)
def test_a_size_that_would_fill_the_memory_is_refused_before_it_is_made(name):
    one = GREEDY[name]
    with pytest.raises(UnreadableModelError, match="numbers"):
        import_graph(model_of(one, 20))(torch.from_numpy(one.x))


def test_a_list_of_sizes_that_is_no_shape_is_refused():
    one = case("Reshape", X, np.ones(_sizes._MOST_LISTED + 1, np.int64))
    with pytest.raises(UnreadableModelError, match="'it'"):
        import_graph(model_of(one, 20))(torch.from_numpy(one.x))
