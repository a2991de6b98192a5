from __future__ import annotations

import copy
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from compressor.core.errors import UnreadableModelError, UnsupportedOperatorError
from compressor.core.types import ModelSpec, Normalization
from compressor.models.classifier import build_classifier
from exporters.differentiable.file_model import FileModel
from exporters.differentiable.graph import import_graph, known_operators
from exporters.differentiable.logit_agreement import compare_logits, compare_with_onnxruntime
from exporters.differentiable.registry import operator
from exporters.model_file.runtime import open_session
from exporters.writing.onnx import export_onnx, serialise

VALUE_TOLERANCE = 2e-6  # of one operator in float32, against onnxruntime
LOGIT_TOLERANCE = 1e-5  # of a whole network, relative to the logit scale
GRADIENT_TOLERANCE = 1e-5  # of a whole network, relative to the largest gradient

NODE_OPSET = 20
IMAGES = ["batch", 3, 8, 8]


def node_model(
    op: str,
    shapes: Sequence[Sequence[Any]],
    constants: dict[int, np.ndarray],
    *,
    opset: int = NODE_OPSET,
    element: int = TensorProto.FLOAT,
    **attributes: Any,
) -> onnx.ModelProto:
    """One operator whose first input is the image, and whose others are constants (position -> value)."""
    names = ["x"] + [f"c{i}" if i in constants else "" for i in range(1, 1 + max(constants, default=0))]
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], name="it", **attributes)],
        "g",
        [helper.make_tensor_value_info("x", element, shapes[0])],
        [helper.make_tensor_value_info("y", element, None)],
        [numpy_helper.from_array(value, f"c{i}") for i, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def by_onnxruntime(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """The plain runtime: the project's own session takes classifiers only."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape) + 7).normal(size=shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.asarray(values, dtype=np.int64)


def one(value: float) -> np.ndarray:
    return np.asarray(value, dtype=np.float32)


W, DEPTHWISE = normal(6, 3, 3, 3), normal(6, 1, 3, 3)
STATISTICS = {1: normal(3), 2: normal(3), 3: normal(3), 4: np.abs(normal(3)) + 0.5}

CASES: list[tuple[str, dict[int, np.ndarray], dict[str, Any]]] = [
    ("Conv", {1: W}, {}),
    ("Conv", {1: W, 2: normal(6)}, {"pads": [1, 1, 1, 1], "strides": [2, 2], "kernel_shape": [3, 3]}),
    ("Conv", {1: W}, {"pads": [0, 0, 1, 1], "strides": [2, 2]}),
    ("Conv", {1: W}, {"pads": [2, 0, 1, 3], "strides": [1, 2], "dilations": [2, 1]}),
    ("Conv", {1: DEPTHWISE}, {"group": 3, "pads": [1, 1, 1, 1]}),
    ("Conv", {1: normal(6, 3, 1, 1)}, {}),
    ("Conv", {1: W}, {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("Conv", {1: normal(6, 3, 2, 4)}, {"auto_pad": "SAME_LOWER", "strides": [2, 3]}),
    ("Conv", {1: W}, {"auto_pad": "VALID"}),
    ("BatchNormalization", STATISTICS, {"epsilon": 1e-3, "momentum": 0.5}),
    ("Relu", {}, {}),
    ("Sigmoid", {}, {}),
    ("HardSigmoid", {}, {}),
    ("HardSigmoid", {}, {"alpha": 1.5, "beta": 0.25}),
    ("HardSwish", {}, {}),
    ("Clip", {1: one(-0.3), 2: one(0.6)}, {}),
    ("Clip", {1: one(0.1)}, {}),
    ("Clip", {2: one(0.1)}, {}),
    ("Clip", {}, {}),
    ("Add", {1: normal(3, 1, 1)}, {}),
    ("Sub", {1: normal(1, 3, 1, 8)}, {}),
    ("Mul", {1: one(0.3)}, {}),
    ("Div", {1: np.abs(normal(8)) + 0.5}, {}),
    ("Softmax", {}, {"axis": 1}),
    ("Softmax", {}, {}),
    ("LogSoftmax", {}, {"axis": 1}),
    ("AveragePool", {}, {"kernel_shape": [4, 4], "strides": [4, 4]}),
    ("AveragePool", {}, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}),
    ("AveragePool", {}, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    ("AveragePool", {}, {"kernel_shape": [3, 2], "pads": [0, 0, 2, 1], "count_include_pad": 0}),
    ("AveragePool", {}, {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("MaxPool", {}, {"kernel_shape": [3, 3], "pads": [0, 1, 2, 1], "strides": [2, 2]}),
    ("MaxPool", {}, {"kernel_shape": [2, 2], "dilations": [2, 2]}),
    ("MaxPool", {}, {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ("MaxPool", {}, {"kernel_shape": [3, 2], "strides": [3, 2], "ceil_mode": 1}),
    ("GlobalAveragePool", {}, {}),
    ("ReduceMean", {1: ints(-1, -2)}, {"keepdims": 0}),
    ("ReduceMean", {1: ints(2, 3)}, {"keepdims": 1, "noop_with_empty_axes": 0}),
    ("ReduceMean", {}, {}),
    ("ReduceMean", {}, {"noop_with_empty_axes": 1}),
    ("MatMul", {1: normal(8, 5)}, {}),
    ("Reshape", {1: ints(-1, 192)}, {"allowzero": 1}),
    ("Reshape", {1: ints(0, 3, -1)}, {}),
    ("Flatten", {}, {}),
    ("Flatten", {}, {"axis": -1}),
    ("Flatten", {}, {"axis": 0}),
    ("Pad", {1: ints(0, 0, 1, 0, 0, 0, 0, 2)}, {}),
    ("Pad", {1: ints(0, 0, -1, 0, 0, 0, 0, 2), 2: one(1.5)}, {}),
    ("Pad", {1: ints(1, 0, 2, 3), 3: ints(-1, 2)}, {}),
    ("Pad", {1: ints(0, 0, 1, 2, 0, 0, 3, 0)}, {"mode": "reflect"}),
    ("Pad", {1: ints(0, 0, 1, 2, 0, 0, 3, 0)}, {"mode": "edge"}),
    ("Identity", {}, {}),
    ("Transpose", {}, {"perm": [0, 2, 3, 1]}),
    ("Transpose", {}, {}),
    ("Gather", {1: ints(2, -1)}, {"axis": 1}),
    ("Gather", {1: np.asarray(1, dtype=np.int64)}, {"axis": -1}),
    ("Unsqueeze", {1: ints(-1, 0)}, {}),
    ("Round", {}, {}),
    ("Floor", {}, {}),
    ("Ceil", {}, {}),
    ("Sign", {}, {}),
    ("Cast", {}, {"to": TensorProto.FLOAT}),
]
PIECEWISE_CONSTANT = ("Round", "Floor", "Ceil", "Sign")


def case_name(case: Any) -> str:
    op, constants, attributes = case
    return "-".join([op, *map(str, constants), *(f"{key}={value}" for key, value in attributes.items())])


@pytest.mark.parametrize("case", CASES, ids=case_name)
@pytest.mark.parametrize("batch", [1, 3])
def test_an_operator_gives_the_values_of_onnxruntime(case, batch):
    op, constants, attributes = case
    model = node_model(op, [IMAGES], constants, **attributes)
    x = normal(batch, 3, 8, 8)
    expected = by_onnxruntime(model, x)
    actual = import_graph(model)(torch.from_numpy(x)).numpy()
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    np.testing.assert_allclose(actual, expected, rtol=VALUE_TOLERANCE, atol=10 * VALUE_TOLERANCE)


@pytest.mark.parametrize(
    "case", [case for case in CASES if case[0] not in (*PIECEWISE_CONSTANT, "Cast")], ids=case_name
)
def test_an_operator_has_the_gradient_of_finite_differences(case):
    op, constants, attributes = case
    model = node_model(op, [["batch", 3, 8, 8]], constants, **attributes)
    graph = import_graph(model).double()
    # Distinct values 0.01 apart, none at a kink, so that no finite difference crosses one.
    values = torch.randperm(192, generator=torch.Generator().manual_seed(0)).double()
    x = ((values - 96) / 100 + 0.0037).reshape(1, 3, 8, 8).requires_grad_()
    assert torch.autograd.gradcheck(graph, (x,), eps=1e-6, atol=1e-6, fast_mode=True)


@pytest.mark.parametrize(
    ("constants", "attributes"),
    [
        ({1: normal(6, 4), 2: normal(4)}, {}),
        ({1: normal(4, 6), 2: normal(1, 4)}, {"transB": 1, "alpha": 0.5, "beta": 2.0}),
        ({1: normal(6, 4)}, {"alpha": -1.5}),
        ({1: normal(3, 4)}, {"transA": 1}),
    ],
)
def test_gemm_gives_the_values_of_onnxruntime_and_has_a_gradient(constants, attributes):
    model = node_model("Gemm", [["batch", 6]], constants, **attributes)
    x = normal(3, 6)
    graph = import_graph(model)
    np.testing.assert_allclose(
        graph(torch.from_numpy(x)).numpy(), by_onnxruntime(model, x), rtol=VALUE_TOLERANCE, atol=10 * VALUE_TOLERANCE
    )
    assert torch.autograd.gradcheck(graph.double(), (torch.from_numpy(x).double().requires_grad_(),))


def test_squeeze_and_older_reduce_mean_give_the_values_of_onnxruntime():
    x = normal(3, 1, 8, 1)
    for constants, attributes, op, opset in [
        ({1: ints(-1)}, {}, "Squeeze", 20),
        ({}, {}, "Squeeze", 20),
        ({}, {"axes": [1, -1], "keepdims": 0}, "ReduceMean", 13),
    ]:
        model = node_model(op, [["batch", 1, 8, 1]], constants, opset=opset, **attributes)
        actual = import_graph(model)(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(actual, by_onnxruntime(model, x), rtol=VALUE_TOLERANCE)


def graph_of(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray] | None = None, **options: Any) -> Any:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, IMAGES)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", NODE_OPSET)], ir_version=8)
    return model if options.get("proto") else import_graph(model, **options)


def test_a_shape_computed_in_the_graph_follows_the_batch():
    nodes = [
        helper.make_node("Shape", ["x"], ["n"], start=0, end=1),
        helper.make_node("Constant", [], ["rest"], value_ints=[192]),
        helper.make_node("Concat", ["n", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
    ]
    model = graph_of(nodes, proto=True)
    for batch in (1, 5):
        x = normal(batch, 3, 8, 8)
        np.testing.assert_array_equal(import_graph(model)(torch.from_numpy(x)).numpy(), by_onnxruntime(model, x))


def test_integer_division_goes_towards_zero_as_in_onnxruntime():
    nodes = [
        helper.make_node("Constant", [], ["a"], value_ints=[-7, 7, -8]),
        helper.make_node("Constant", [], ["b"], value_ints=[2, -2, 3]),
        helper.make_node("Div", ["a", "b"], ["q"]),
        helper.make_node("Cast", ["q"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x"], ["m"], keepdims=0),
        helper.make_node("Add", ["f", "m"], ["y"]),
    ]
    model = graph_of(nodes, proto=True)
    x = np.zeros((1, 3, 8, 8), np.float32)
    np.testing.assert_array_equal(import_graph(model)(torch.from_numpy(x)).numpy(), by_onnxruntime(model, x))


@pytest.mark.parametrize("op", PIECEWISE_CONSTANT)
def test_a_piecewise_constant_operator_passes_the_gradient_straight_through(op):
    graph = import_graph(node_model(op, [IMAGES], {}))
    x = torch.from_numpy(normal(2, 3, 8, 8)).requires_grad_()
    weight = torch.from_numpy(normal(2, 3, 8, 8))
    (gradient,) = torch.autograd.grad((graph(x) * weight).sum(), x)
    assert torch.equal(gradient, weight)


def test_a_cast_to_integers_and_back_truncates_and_passes_the_gradient():
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64),
        helper.make_node("Cast", ["i"], ["y"], to=TensorProto.FLOAT),
    ]
    model = graph_of(nodes, proto=True)
    values = 3 * normal(1, 3, 8, 8)
    x = torch.from_numpy(values).requires_grad_()
    y = import_graph(model)(x)
    np.testing.assert_array_equal(y.detach().numpy(), by_onnxruntime(model, values))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient, torch.ones_like(x))


@pytest.mark.parametrize(
    ("attributes", "sizes"), [({"num_outputs": 3}, None), ({}, ints(1, 5, 2)), ({"num_outputs": 3, "axis": -1}, None)]
)
def test_split_gives_onnxruntime_s_parts_in_order(attributes, sizes):
    axis = attributes.get("axis", 2)
    inputs = ["x"] if sizes is None else ["x", "sizes"]
    nodes = [
        helper.make_node("Split", inputs, ["a", "b", "c"], **{"axis": axis, **attributes}),
        helper.make_node("Concat", ["c", "a", "b", "a"], ["y"], axis=axis),
    ]
    value = helper.make_tensor_value_info
    weights = [] if sizes is None else [numpy_helper.from_array(sizes, "sizes")]
    ends = [value("x", TensorProto.FLOAT, IMAGES)], [value("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "g", *ends, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", NODE_OPSET)], ir_version=8)
    x = normal(2, 3, 8, 8)
    imported = import_graph(model)
    assert np.array_equal(imported(torch.from_numpy(x)).numpy(), by_onnxruntime(model, x))
    assert torch.autograd.gradcheck(imported.double(), torch.from_numpy(x).double().requires_grad_(), fast_mode=True)


def test_an_output_of_split_that_stands_for_nothing_or_for_another_value_is_refused():
    model = node_model("Split", [IMAGES], {}, num_outputs=2, axis=2)
    for name, error in (("", UnsupportedOperatorError), ("y", UnreadableModelError), ("x", UnreadableModelError)):
        del model.graph.node[0].output[1:]
        model.graph.node[0].output.append(name)
        with pytest.raises(error):
            import_graph(model)


@pytest.mark.parametrize("straight_through", [False, True])
def test_hard_sigmoid_masks_the_gradient_where_it_saturates_unless_asked_otherwise(straight_through):
    model = node_model("HardSigmoid", [IMAGES], {}, alpha=1.0, beta=0.5)
    x = torch.from_numpy(normal(1, 3, 8, 8)).requires_grad_()
    (gradient,) = torch.autograd.grad(import_graph(model, straight_through=straight_through)(x).sum(), x)
    inside = (x.abs() < 0.5).float()
    assert 0 < inside.mean() < 1
    assert torch.equal(gradient, torch.ones_like(x) if straight_through else inside)


@pytest.mark.parametrize("straight_through", [False, True])
def test_clip_masks_the_gradient_where_it_saturates_unless_asked_otherwise(straight_through):
    model = node_model("Clip", [IMAGES], {1: one(-0.5), 2: one(0.5)})
    x = torch.from_numpy(normal(1, 3, 8, 8)).requires_grad_()
    y = import_graph(model, straight_through=straight_through)(x)
    assert torch.equal(y, x.clamp(-0.5, 0.5))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    inside = (x.abs() < 0.5).float()
    assert 0 < inside.mean() < 1
    assert torch.equal(gradient, torch.ones_like(x) if straight_through else inside)


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("MaxPool", {"kernel_shape": [2, 2], "storage_order": 1}),
        ("Relu", {"alpha": 1.0}),
        ("Hardmax", {}),
    ],
)
def test_what_is_not_implemented_is_refused_and_named(op, attributes):
    with pytest.raises(UnsupportedOperatorError) as caught:
        import_graph(node_model(op, [IMAGES], {}, **attributes))
    for part in (op, "ai.onnx", str(NODE_OPSET), "'it'"):
        assert part in caught.value.message


def test_a_second_output_and_a_training_mode_are_refused():
    model = node_model("BatchNormalization", [IMAGES], STATISTICS, training_mode=1)
    with pytest.raises(UnsupportedOperatorError, match="training_mode"):
        import_graph(model)
    model = node_model("MaxPool", [IMAGES], {}, kernel_shape=[2, 2])
    model.graph.node[0].output.append("indices")
    with pytest.raises(UnsupportedOperatorError, match="output"):
        import_graph(model)


@pytest.mark.parametrize("domain", ["com.microsoft", "ai.onnx.ml", "mine"])
def test_every_custom_domain_is_refused(domain):
    model = node_model("Relu", [IMAGES], {})
    model.graph.node[0].domain = domain
    with pytest.raises(UnsupportedOperatorError, match=domain):
        import_graph(model)


def test_a_domain_that_is_declared_and_used_by_no_node_does_not_matter():
    model = node_model("Relu", [IMAGES], {})
    model.opset_import.add(domain="com.microsoft", version=1)
    x = normal(1, 3, 8, 8)
    np.testing.assert_array_equal(import_graph(model)(torch.from_numpy(x)).numpy(), by_onnxruntime(model, x))


def test_a_version_of_an_operator_that_means_something_else_is_refused():
    with pytest.raises(UnsupportedOperatorError, match=r"Softmax.*opset 10"):
        import_graph(node_model("Softmax", [IMAGES], {}, opset=10))
    with pytest.raises(UnsupportedOperatorError, match="opset 99"):
        import_graph(node_model("Relu", [IMAGES], {}, opset=99))


def test_an_attribute_of_the_wrong_kind_or_given_twice_is_refused():
    model = node_model("Flatten", [IMAGES], {})
    model.graph.node[0].attribute.append(helper.make_attribute("axis", 1.0))
    with pytest.raises(UnsupportedOperatorError, match="axis"):
        import_graph(model)
    model = node_model("Flatten", [IMAGES], {}, axis=1)
    model.graph.node[0].attribute.append(helper.make_attribute("axis", 2))
    with pytest.raises(UnsupportedOperatorError, match="twice"):
        import_graph(model)


def test_graphs_that_are_not_well_formed_are_refused():
    relu = helper.make_node("Relu", ["x"], ["y"])
    for nodes in (
        [helper.make_node("Relu", ["late"], ["y"]), helper.make_node("Relu", ["x"], ["late"])],
        [relu, relu],
        [helper.make_node("Relu", ["x"], ["z"])],
        [helper.make_node("Relu", ["x", "x"], ["y"])],
        [helper.make_node("Transpose", ["x"], ["x"])],
    ):
        with pytest.raises(UnreadableModelError):
            graph_of(nodes)


def test_a_weight_that_does_not_fit_its_shape_is_refused():
    model = node_model("Add", [IMAGES], {1: normal(3, 1, 1)})
    model.graph.initializer[0].dims[:] = [7]
    with pytest.raises(UnreadableModelError):
        import_graph(model)


def test_weights_beyond_the_limit_are_refused(monkeypatch):
    monkeypatch.setattr("exporters.differentiable.graph.MAX_CONSTANT_BYTES", 11)
    with pytest.raises(UnreadableModelError, match="larger than"):
        import_graph(node_model("Add", [IMAGES], {1: normal(3, 1, 1)}))


def test_values_that_do_not_fit_together_are_a_plain_error_naming_the_node():
    graph = import_graph(node_model("MatMul", [IMAGES], {1: normal(7, 5)}))
    with pytest.raises(UnreadableModelError, match="'it'"):
        graph(torch.zeros(1, 3, 8, 8))


def test_operands_of_two_types_are_refused_as_onnxruntime_does():
    model = node_model("Add", [IMAGES], {1: normal(3, 1, 1).astype(np.float64)})
    with pytest.raises(UnreadableModelError):
        import_graph(model)(torch.zeros(1, 3, 8, 8))


def test_registering_an_operator_twice_raises():
    assert "Conv" in known_operators()
    with pytest.raises(ValueError, match="twice"):
        operator("Conv", 11)(lambda node: torch.relu)


def test_weights_are_buffers_that_follow_the_module_and_need_no_gradient():
    graph = import_graph(node_model("Conv", [IMAGES], {1: W}))
    assert not list(graph.parameters())
    (weight,) = graph.buffers()
    assert torch.equal(weight, torch.from_numpy(W))
    assert graph.double()(torch.zeros(1, 3, 8, 8, dtype=torch.float64)).dtype == torch.float64


# Whole networks


class PlainNet(nn.Module):
    """What the families lack: ReLU6, a residual sum, depthwise and asymmetric convolutions, all poolings."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.stem = nn.Conv2d(3, 8, 3, padding=1)
            self.norm = nn.BatchNorm2d(8)
            self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
            self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.relu6(4 * self.norm(nn.functional.max_pool2d(self.stem(x), 3, 2, 1)))
        x = x + nn.functional.silu(self.depthwise(nn.functional.pad(x, (1, 1, 1, 1))))
        x = nn.functional.avg_pool2d(nn.functional.pad(x, (0, 1, 0, 1)), 2)
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


NORMALIZATION = Normalization((0.49, 0.48, 0.45), (0.25, 0.24, 0.26))
NETWORKS = {
    "plain": None,
    "resnet18-0.25": ModelSpec("resnet18-0.25", 10),
    "mobilenetv2-0.25": ModelSpec("mobilenetv2-0.25", 10, normalization=NORMALIZATION),
    "wideresnet-10-1": ModelSpec("wideresnet-10-1", 10),
    "dm-wideresnet-10-1-silu": ModelSpec("dm-wideresnet-10-1", 10, normalization=NORMALIZATION, activation="silu"),
    "dm-wideresnet-10-1-relu": ModelSpec("dm-wideresnet-10-1", 10, activation="relu"),
    "dm-resnet18": ModelSpec("dm-resnet18", 7, normalization=NORMALIZATION, activation="silu"),
}


def network(name: str) -> nn.Module:
    """Fresh weights, and BatchNorm statistics of the test's own images: untouched ones would let a network explode."""
    spec = NETWORKS[name]
    model = PlainNet() if spec is None else build_classifier(spec, seed=0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        model.train()(pictures(16))
    return model.eval()


def pictures(count: int, size: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(5))


def input_gradient(model: nn.Module, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    loss = nn.functional.cross_entropy(model(x), labels, reduction="sum")
    return torch.autograd.grad(loss, x)[0]


def assert_gradients_agree(actual: torch.Tensor, expected: torch.Tensor) -> None:
    for one_actual, one_expected in zip(actual, expected, strict=True):
        scale = one_expected.abs().max()
        assert scale > 0
        assert (one_actual - one_expected).abs().max() < GRADIENT_TOLERANCE * scale


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_keeps_its_logits_and_input_gradients(name):
    model = network(name)
    proto = export_onnx(model, 32)
    session, graph = open_session(serialise(proto), threads=1), import_graph(proto)
    attacked = FileModel(session, graph)
    labels = torch.tensor([0, 1, 2])
    for count in (1, 3):
        x = pictures(count)
        with torch.no_grad():
            expected = model(x).numpy()
        for actual in (graph(x).numpy(), session(x.numpy()), attacked(x).numpy()):
            assert compare_logits(expected, actual).max_relative_error < LOGIT_TOLERANCE
        # onnxruntime's logits enter the loss, but the ReLUs that are on are the importer's own.
        y = labels[:count]
        assert_gradients_agree(input_gradient(attacked, x, y), input_gradient(graph, x, y))
    # In float32 a ReLU within rounding of zero may switch, which moves the gradient of its image by whole percents.
    x = x.double()
    exact, imported = copy.deepcopy(model).double(), import_graph(proto).double()
    assert_gradients_agree(input_gradient(imported, x, labels), input_gradient(exact, x, labels))
    result = compare_with_onnxruntime(session, graph, pictures(5).numpy())
    assert result.passed
    assert result.argmax_agreement == 1.0


@pytest.fixture(scope="module")
def file_model() -> FileModel:
    proto = export_onnx(network("plain"), 32)
    return FileModel(open_session(serialise(proto), threads=1), import_graph(proto))


def test_the_module_under_attack_decides_as_onnxruntime_to_the_bit(file_model):
    x = pictures(4)
    decided = file_model.decider.session(x.numpy())
    for needed in (False, True):
        np.testing.assert_array_equal(file_model(x.clone().requires_grad_(needed)).detach().numpy(), decided)


def test_the_module_under_attack_takes_the_decision_where_importer_and_runtime_differ(file_model):
    class Wrong(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)[:, :10] * float("inf")

    model = FileModel(file_model.decider.session, Wrong())
    x = pictures(2).requires_grad_()
    np.testing.assert_array_equal(model(x).detach().numpy(), file_model.decider.session(x.detach().numpy()))


def test_the_importer_is_not_run_where_no_gradient_is_wanted(file_model, monkeypatch):
    monkeypatch.setattr(file_model.graph, "forward", lambda x: pytest.fail("it was run"))
    file_model(pictures(1))
    with torch.no_grad():
        file_model(pictures(1).requires_grad_())


def test_the_gate_refuses_an_importer_of_other_weights(file_model):
    proto = export_onnx(network("plain"), 32)
    for tensor in proto.graph.initializer:
        if tensor.name == "head.bias":
            bias = numpy_helper.to_array(tensor).copy()
            bias[2] += 1e-2
            tensor.CopyFrom(numpy_helper.from_array(bias, tensor.name))
    result = compare_with_onnxruntime(file_model.decider.session, import_graph(proto), pictures(5).numpy())
    assert not result.passed


def test_no_images_do_not_pass_the_gate(file_model):
    assert not compare_with_onnxruntime(file_model.decider.session, file_model.graph, pictures(0).numpy()).passed


def test_a_constant_added_to_all_logits_cannot_hide_a_difference():
    reference = normal(6, 4)
    other = reference.copy()
    other[0, 0] += 0.01
    shifted = compare_logits(reference + 4096, other + 4096)
    assert not compare_logits(reference, other).passed
    assert not shifted.passed


def test_the_relative_error_is_the_difference_over_the_median_spread():
    reference = np.asarray([[0, 2], [1, 5], [3, 11]], np.float32)  # spreads 2, 4, 8
    other = reference + np.asarray([[0, 0], [0, 0.5], [0, 0]], np.float32)
    result = compare_logits(reference, other)
    assert result.scale == 4
    assert result.max_relative_error == pytest.approx(0.125)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_never_pass(bad):
    logits = normal(3, 4)
    broken = logits.copy()
    broken[1, 1] = bad
    assert not compare_logits(broken, broken).passed
    assert not compare_logits(logits, broken).passed


def test_values_are_freed_when_last_read():
    """In a chain of 40 values, without gradients, no more than the last two may live at once."""
    nodes = [helper.make_node("Relu", ["x"], ["v0"])]
    nodes += [helper.make_node("Relu", [f"v{i}"], [f"v{i + 1}"]) for i in range(39)]
    nodes += [helper.make_node("Relu", ["v39"], ["y"])]
    graph = graph_of(nodes)
    alive: list[int] = []
    seen: list[Any] = []

    def watched(operation: Any) -> Any:
        def run(x: torch.Tensor) -> torch.Tensor:
            y = operation(x)
            seen.append(weakref.ref(y))
            alive.append(sum(ref() is not None for ref in seen))
            return y

        return run

    for step in graph._steps:
        object.__setattr__(step, "operation", watched(step.operation))
    with torch.no_grad():
        graph(torch.zeros(1, 3, 8, 8))
    assert max(alive) <= 2
