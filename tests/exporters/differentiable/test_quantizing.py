"""Eight-bit and half-precision graphs in the importer, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from compressor.core.errors import UnreadableModelError, UnsupportedOperatorError
from exporters.differentiable.graph import GraphModule, import_graph

SHAPE = (4, 3, 8, 8)
INT8, UINT8 = np.int8, np.uint8


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape) + 7).normal(size=shape).astype(np.float32)


def graph_of(
    nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray] | None = None, opset: int = 20
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *SHAPE[1:]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def by_onnxruntime(model: onnx.ModelProto, x: np.ndarray, *, optimised: bool = True) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def there_and_back(
    scale: Any, zero: np.ndarray | None, *, opset: int = 20, quantize: Any = (), **attributes: Any
) -> onnx.ModelProto:
    """The image, quantised and dequantised."""
    constants = {"scale": np.asarray(scale, np.float32)} | ({} if zero is None else {"zero": zero})
    more = [] if zero is None else ["zero"]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", *more], ["q"], name="q", **attributes, **dict(quantize)),
        helper.make_node("DequantizeLinear", ["q", "scale", *more], ["y"], name="d", **attributes),
    ]
    return graph_of(nodes, constants, opset)


PER_CHANNEL = [0.01, 0.02, 0.05]
QUANTISERS = {
    "no zero point": (0.01, None, {}),
    "uint8": (0.02, np.asarray(117, UINT8), {}),
    "int8": (0.02, np.asarray(-9, INT8), {}),
    "one scale in a list": ([0.02], np.asarray([3], INT8), {}),
    "per channel": (PER_CHANNEL, np.asarray([0, 128, 255], UINT8), {}),
    "per channel, no zero point": (PER_CHANNEL, None, {}),
    "per row": ([0.01, 0.02] * 4, np.asarray([-128, 127] * 4, INT8), {"axis": -2}),
}


@pytest.mark.parametrize("opset", [10, 13, 18, 19, 20, 21])
@pytest.mark.parametrize("name", QUANTISERS)
def test_a_quantiser_gives_the_values_of_onnxruntime_to_the_bit(name, opset):
    scale, zero, attributes = QUANTISERS[name]
    if opset < 13 and np.size(scale) > 1:
        pytest.skip("before opset 13 there was one scale for all")
    model = there_and_back(scale, zero, opset=opset, **attributes)
    # Steps of 1/8 of a quantum meet every tie; most of the values saturate somewhere.
    x = np.concatenate([2 * normal(3, *SHAPE[1:]), (np.arange(192, dtype=np.float32) / 400).reshape(1, *SHAPE[1:])])
    imported = import_graph(model)(torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(imported, by_onnxruntime(model, x, optimised=False))


def test_halves_are_rounded_to_even_before_the_zero_point_is_added():
    model = there_and_back(1.0, np.asarray(1, UINT8))
    x = np.resize(np.asarray([0.5, 1.5, 2.5, -0.5, -1.5, 300], np.float32), SHAPE)
    expected = np.resize(np.asarray([0, 2, 2, 0, -1, 254], np.float32), SHAPE)
    np.testing.assert_array_equal(import_graph(model)(torch.from_numpy(x)).numpy(), expected)
    np.testing.assert_array_equal(by_onnxruntime(model, x, optimised=False), expected)


@pytest.mark.parametrize("straight_through", [False, True])
def test_rounding_passes_the_gradient_and_saturation_masks_it_unless_asked_otherwise(straight_through):
    model = there_and_back(0.01, np.asarray(10, INT8))  # -1.38 to 1.17
    x = torch.from_numpy(2 * normal(*SHAPE)).requires_grad_()
    weight = torch.from_numpy(normal(*SHAPE, 1)[..., 0])
    y = import_graph(model, straight_through=straight_through)(x)
    (gradient,) = torch.autograd.grad((y * weight).sum(), x)
    inside = ((x > -1.38) & (x < 1.17)).float()
    assert 0 < inside.mean() < 1
    torch.testing.assert_close(gradient, weight * (1.0 if straight_through else inside))


def test_eight_bit_weights_and_a_bias_of_32_bits_give_the_values_of_onnxruntime():
    random = np.random.default_rng(0)
    constants: dict[str, np.ndarray] = {
        "w": random.integers(-127, 128, (6, 3, 3, 3)).astype(INT8),
        "w scale": np.linspace(0.001, 0.01, 6, dtype=np.float32),
        "w zero": np.zeros(6, INT8),
        "b": random.integers(-5000, 5000, 6).astype(np.int32),
        "b scale": np.linspace(1e-5, 1e-4, 6, dtype=np.float32),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "w scale", "w zero"], ["W"], axis=0),
        helper.make_node("DequantizeLinear", ["b", "b scale"], ["B"], axis=0),
        helper.make_node("Conv", ["x", "W", "B"], ["y"]),
    ]
    model = graph_of(nodes, constants)
    x = normal(*SHAPE)
    imported = import_graph(model)
    np.testing.assert_allclose(imported(torch.from_numpy(x)).numpy(), by_onnxruntime(model, x), rtol=1e-5, atol=1e-6)
    # In float64 too, where the integers are exact and the scales are converted.
    assert torch.autograd.gradcheck(imported.double(), (torch.from_numpy(x[:1]).double().requires_grad_(),))


@pytest.mark.parametrize(
    ("attributes", "says"),
    [({"block_size": 2}, "blocks"), ({"output_dtype": TensorProto.UINT16}, "type"), ({"made_up": 1}, "made_up")],
)
def test_what_a_quantiser_does_not_implement_is_refused(attributes, says):
    model = there_and_back(0.1, None, opset=21, quantize=attributes)
    with pytest.raises(UnsupportedOperatorError, match=says):
        import_graph(model)


def test_the_attribute_for_the_type_counts_where_there_is_no_zero_point():
    x = torch.from_numpy(normal(*SHAPE))
    model = there_and_back(1.0, None, opset=21, quantize={"output_dtype": TensorProto.INT8})
    assert import_graph(model)(x).min() < 0
    assert import_graph(there_and_back(1.0, None, opset=21))(x).min() == 0


@pytest.mark.parametrize(
    ("scale", "zero"), [([0.1, 0.2], np.zeros(2, INT8)), (0.1, np.asarray(0, np.int32)), (0.1, np.asarray(0.0))]
)
def test_a_quantiser_whose_values_do_not_fit_is_a_plain_error(scale, zero):
    with pytest.raises(UnreadableModelError, match="'q'"):
        import_graph(there_and_back(scale, zero))(torch.zeros(SHAPE))


# Half precision


def half_of(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray] | None = None) -> onnx.ModelProto:
    """A graph in float16 from the value ``h`` to the value ``r``, between two casts."""
    into = helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16)
    back = helper.make_node("Cast", ["r"], ["y"], to=TensorProto.FLOAT)
    return graph_of([into, *nodes, back], constants)


def half(*shape: int) -> np.ndarray:
    return normal(*shape).astype(np.float16)


HALVES = {
    "Relu": ([helper.make_node("Relu", ["h"], ["r"])], {}),
    "Add": ([helper.make_node("Add", ["h", "c"], ["r"])], {"c": half(3, 1, 1)}),
    "Conv": ([helper.make_node("Conv", ["h", "c"], ["r"])], {"c": half(6, 3, 3, 3)}),
    "Mean": ([helper.make_node("ReduceMean", ["h", "c"], ["r"])], {"c": np.asarray([2, 3])}),
    "Conv, Clip, Conv": (
        [
            helper.make_node("Conv", ["h", "w"], ["m"]),
            helper.make_node("Clip", ["m", "zero", "c"], ["n"]),
            helper.make_node("Conv", ["n", "v"], ["r"]),
        ],
        {"w": half(6, 3, 3, 3), "v": half(4, 6, 1, 1), "zero": np.asarray(0, np.float16), "c": np.float16(0.3)},
    ),
}


@pytest.mark.parametrize("name", HALVES)
def test_a_float16_operator_gives_the_values_of_onnxruntime_on_a_cpu(name):
    model = half_of(*HALVES[name])
    x = normal(*SHAPE)
    actual = import_graph(model)(torch.from_numpy(x)).numpy()
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, by_onnxruntime(model, x), rtol=2e-6, atol=1e-5)  # rounding would move it by 1e-4


def test_a_value_that_is_cast_to_float16_and_straight_back_is_rounded_and_keeps_its_gradient():
    back = helper.make_node("Cast", ["h"], ["y"], to=TensorProto.FLOAT)
    model = graph_of([helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16), back])
    values = normal(*SHAPE)
    x = torch.from_numpy(values).requires_grad_()
    y = import_graph(model)(x)
    np.testing.assert_array_equal(y.detach().numpy(), by_onnxruntime(model, values))
    assert not torch.equal(y, x)
    (gradient,) = torch.autograd.grad(1e-9 * y.sum(), x)  # below the smallest float16
    torch.testing.assert_close(gradient, torch.full(SHAPE, 1e-9))


def test_no_value_of_a_float16_graph_is_computed_in_float16():
    graph: GraphModule = import_graph(half_of(*HALVES["Conv"]))
    assert {buffer.dtype for buffer in graph.buffers()} == {torch.float32}
