from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from compressor.core.errors import CompressError, MissingInputError, UnreadableModelError
from exporters.differentiable.graph import import_graph
from exporters.model_file import structure
from exporters.model_file.structure import Limits, load_untrusted


def honest() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["input", "kernel"], ["features"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["features"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 6, 6])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])],
        [
            numpy_helper.from_array(rng.normal(size=(2, 3, 3, 3)).astype(np.float32), "kernel"),
            numpy_helper.from_array(rng.normal(size=(4, 2)).astype(np.float32), "weight"),
            numpy_helper.from_array(rng.normal(size=4).astype(np.float32), "bias"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes | onnx.ModelProto], Path]:
    def _write(content: bytes | onnx.ModelProto) -> Path:
        path = tmp_path / "model.onnx"
        path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
        return path

    return _write


def test_an_honest_file_passes_every_check_and_comes_back_as_it_is(write):
    path = write(honest())
    checked = load_untrusted(path)
    assert checked.data == path.read_bytes()
    assert checked.model == honest()
    assert {finding.status for finding in checked.findings} == {"passed"}
    assert [finding.name for finding in checked.findings] == [
        *("size", "nodes", "metadata", "domains", "nesting", "weights", "form", "checker")
    ]


@pytest.mark.parametrize("domain", ["com.microsoft", "pkg.onnxscript.torch_lib"])
def test_a_domain_that_no_operator_is_of_does_no_harm(write, domain):
    model = honest()
    model.opset_import.add(domain=domain, version=1)
    assert "opset 20" in load_untrusted(write(model)).findings[3].detail


def test_a_missing_file_and_a_folder_are_missing_inputs(tmp_path):
    for path in (tmp_path / "absent.onnx", tmp_path):
        with pytest.raises(MissingInputError):
            load_untrusted(path)


@pytest.mark.parametrize("content", [b"", b"\x00", b"PK\x03\x04" * 100, random.Random(0).randbytes(4096), b"{}"])
def test_bytes_that_are_no_model_are_unreadable(write, content):
    with pytest.raises(UnreadableModelError) as caught:
        load_untrusted(write(content))
    assert caught.value.exit_code == 3


def test_a_decoder_without_memory_says_nothing_of_the_file(monkeypatch):
    def decode(data: bytes) -> onnx.ModelProto:
        raise DecodeError("Error parsing message with type 'onnx.ModelProto': Arena alloc failed")

    monkeypatch.setattr(structure, "onnx", SimpleNamespace(ModelProto=SimpleNamespace(FromString=decode)))
    with pytest.raises(MemoryError):
        structure.parse_model(b"anything")


def test_a_file_beyond_the_size_limit_is_not_read(write, monkeypatch):
    path = write(honest())
    monkeypatch.setattr("exporters.model_file.structure.parse_model", lambda data: pytest.fail("it was parsed"))
    with pytest.raises(UnreadableModelError, match="larger than the limit"):
        load_untrusted(path, Limits(file_bytes=100))


def _external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")


def _external_in_attribute(model: onnx.ModelProto) -> None:
    value = numpy_helper.from_array(np.zeros(2, np.float32), "c")
    value.external_data.add(key="location", value="/etc/passwd")
    model.graph.node.insert(0, helper.make_node("Constant", [], ["c"], value=value))


def _custom_domain(model: onnx.ModelProto) -> None:
    model.graph.node[1].domain = "com.example"


def _second_opset(model: onnx.ModelProto) -> None:
    model.opset_import.add(domain="ai.onnx", version=18)


def _function(model: onnx.ModelProto) -> None:
    model.functions.add(name="f", domain="d")


def _branch(model: onnx.ModelProto) -> None:
    inner = helper.make_graph([], "inner", [], [])
    model.graph.node.add(op_type="If", output=["z"]).attribute.append(helper.make_attribute("then_branch", inner))


def _subgraph_in_an_unlikely_operator(model: onnx.ModelProto) -> None:
    model.graph.node[1].attribute.append(helper.make_attribute("body", helper.make_graph([], "inner", [], [])))


def _huge_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1 << 40


def _fixed_rows(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 2


def _two_channels(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2


def _huge_width(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 1 << 40


def _half_precision_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16


def _second_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))


def _second_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["batch", 2]))


def _one_class(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1


def _huge_weight(model: onnx.ModelProto) -> None:
    model.graph.initializer[1].dims[:] = [1 << 32, 1 << 32]


def _negative_weight(model: onnx.ModelProto) -> None:
    model.graph.initializer[1].dims[:] = [-4, -2]


def _sparse_weight(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add()


def _repeated_metadata(model: onnx.ModelProto) -> None:
    for value in "ab":
        model.metadata_props.add(key="compress.claim", value=value)


def _huge_metadata(model: onnx.ModelProto) -> None:
    model.metadata_props.add(key="compress.claim", value="x" * (17 << 20))


def _training(model: onnx.ModelProto) -> None:
    model.training_info.add()


def _too_many_nodes(model: onnx.ModelProto) -> None:
    model.graph.node.extend([helper.make_node("Relu", ["input"], ["r"])] * 20_001)


def _wrong_order(model: onnx.ModelProto) -> None:
    model.graph.node.insert(0, helper.make_node("Relu", ["flat"], ["early"]))


def _no_opset(model: onnx.ModelProto) -> None:
    del model.opset_import[:]


def _future_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 1 << 40


TAMPERED = {
    _external: "another file",
    _external_in_attribute: "another file",
    _custom_domain: "custom domain",
    _second_opset: "which opset",
    _function: "nested functions",
    _branch: "nested graph",
    _subgraph_in_an_unlikely_operator: "nested graph",
    _huge_batch: "images at once",
    _fixed_rows: "one row of logits",
    _two_channels: "1 or 3 channels",
    _huge_width: "larger than 4096 pixels",
    _half_precision_input: "not float32",
    _second_input: "2 inputs",
    _second_output: "2 outputs",
    _one_class: "classes",
    _huge_weight: "larger than the file",
    _negative_weight: "larger than the file",
    _sparse_weight: "sparse",
    _repeated_metadata: "twice",
    _huge_metadata: "metadata is larger",
    _training: "training information",
    _too_many_nodes: "operators",
    _wrong_order: "not valid ONNX",
    _no_opset: "which opset",
    _future_opset: "not valid ONNX",
}


@pytest.mark.parametrize("tamper", TAMPERED, ids=lambda tamper: tamper.__name__.strip("_"))
def test_what_our_exports_never_contain_is_refused_by_name(write, tamper):
    model = honest()
    tamper(model)
    with pytest.raises(UnreadableModelError, match=TAMPERED[tamper]) as caught:
        load_untrusted(write(model))
    assert caught.value.message.endswith(".")
    assert "\n" not in caught.value.message


def test_a_message_that_quotes_the_file_has_no_control_characters(write):
    model = honest()
    model.graph.node[1].op_type = "Relu\x1b[31m"
    with pytest.raises(UnreadableModelError) as caught:
        load_untrusted(write(model))
    assert caught.value.message.isprintable()


def _survives(path: Path) -> None:
    try:
        import_graph(load_untrusted(path).model)
    except CompressError as error:
        assert error.message.endswith(".")  # noqa: PT017 - whether it raises is not the question


def test_every_truncation_is_refused_or_read_but_never_a_traceback(write):
    data = honest().SerializeToString()
    for length in range(len(data)):
        _survives(write(data[:length]))


def test_every_flipped_bit_is_refused_or_read_but_never_a_traceback(write):
    data = honest().SerializeToString()
    rng = random.Random(1)
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << rng.randrange(8)
        _survives(write(bytes(damaged)))


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@given(changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=8))
def test_several_changed_bytes_are_never_a_traceback(write, changes):
    data = bytearray(honest().SerializeToString())
    for position, value in changes:
        data[position % len(data)] = value
    _survives(write(bytes(data)))
