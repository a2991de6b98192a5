from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from compressor.core.errors import MissingDeviceError, MissingInputError, UnreadableModelError, UsageError
from exporters.model_file import runtime
from exporters.model_file.runtime import SessionModule, cpu_features, open_session

WEIGHT = np.random.default_rng(0).normal(size=(3 * 4 * 4, 5)).astype(np.float32)


def linear_model(*, batch: str | int = "batch", output: tuple[str | int, ...] = ("batch", 5)) -> bytes:
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "weight"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, 4, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, output)],
        [numpy_helper.from_array(WEIGHT, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString()


def images(count: int) -> np.ndarray:
    return np.random.default_rng(1).random((count, 3, 4, 4), dtype=np.float32)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 9])
def test_logits_equal_the_matrix_product_at_any_number_of_images(count):
    session = open_session(linear_model(), batch_size=4, threads=1)
    x = images(count)
    logits = session(x)
    assert logits.shape == (count, 5)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, x.reshape(count, 48).astype(np.float64) @ WEIGHT, rtol=1e-5, atol=1e-5)


def test_a_repeated_call_gives_the_same_bits():
    session = open_session(linear_model(), threads=1)
    assert session(images(9)).tobytes() == session(images(9)).tobytes()


def test_the_batch_size_of_one_call_is_honoured(monkeypatch):
    session = open_session(linear_model(), threads=1)
    sizes = []
    run = session._run
    monkeypatch.setattr(session, "_run", lambda chunk: sizes.append(len(chunk)) or run(chunk))
    session(images(5), batch_size=2)
    assert sizes == [2, 2, 1]


def test_a_session_knows_its_names_and_shapes(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(linear_model())
    session = open_session(path, threads=1)
    assert (session.input_name, session.output_name) == ("input", "logits")
    assert (session.image_shape, session.classes, session.provider) == ((3, 4, 4), 5, "cpu")


def test_the_description_is_json_and_names_no_path():
    description = open_session(linear_model(), threads=1).describe()
    assert description["threads"] == 1
    assert description["provider"] == "cpu"
    assert "/" not in json.dumps(description)


def test_the_torch_adapter_gives_the_session_logits_without_gradient():
    session = open_session(linear_model(), threads=1)
    x = torch.from_numpy(images(3)).requires_grad_()
    logits = SessionModule(session)(x)
    assert not logits.requires_grad
    np.testing.assert_array_equal(logits.numpy(), session(images(3)))


def test_cuda_that_is_absent_is_an_error_and_never_a_fallback():
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(MissingDeviceError):
        open_session(linear_model(), provider="cuda")


def test_a_broken_model_is_blamed_on_the_model_even_when_cuda_was_asked_for(monkeypatch):
    monkeypatch.setattr(runtime, "_provider_options", lambda provider: {})
    monkeypatch.setitem(runtime._EXECUTION_PROVIDERS, "cuda", "CPUExecutionProvider")
    with pytest.raises(UnreadableModelError):
        open_session(b"not a model", provider="cuda")


@pytest.mark.parametrize("data", [b"", b"\x00" * 64, linear_model()[:100]])
def test_bytes_that_are_no_model_are_refused_with_a_sentence(data):
    with pytest.raises(UnreadableModelError) as caught:
        open_session(data, threads=1)
    assert caught.value.message.endswith(".")
    assert "\n" not in caught.value.message


def test_a_missing_file_is_a_missing_input(tmp_path: Path):
    with pytest.raises(MissingInputError):
        open_session(tmp_path / "absent.onnx")
    with pytest.raises(MissingInputError):
        open_session(tmp_path)


@pytest.mark.parametrize("x", [images(2).astype(np.float64), images(2)[:, :2], images(2)[0]])
def test_images_that_do_not_fit_are_refused(x):
    with pytest.raises(UsageError):
        open_session(linear_model(), threads=1)(x)


def test_a_failure_while_running_is_a_plain_error(capfd):
    model = onnx.load_from_string(linear_model())
    model.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float32), "ones"))
    model.graph.node[1].output[0] = "product"
    model.graph.node.extend(
        [
            helper.make_node("Shape", ["input"], ["count"], start=0, end=1),
            helper.make_node("Gather", ["ones", "count"], ["one"]),  # there is none at position 3
            helper.make_node("Mul", ["product", "one"], ["logits"]),
        ]
    )
    session = open_session(model.SerializeToString(), threads=1)
    assert len(session(images(1))) == 1
    with pytest.raises(UnreadableModelError, match="cannot run"):
        session(images(3))
    assert capfd.readouterr().err == ""


def test_a_model_with_two_inputs_is_refused():
    model = onnx.load_from_string(linear_model())
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
    with pytest.raises(UnreadableModelError, match="2 inputs"):
        open_session(model.SerializeToString(), threads=1)


def test_names_that_are_no_text_are_refused():
    data = linear_model().replace(b"batch", b"bat\xe8\xe8")
    with pytest.raises(UnreadableModelError):
        open_session(data, threads=1)


def test_threads_must_be_positive():
    with pytest.raises(UsageError):
        open_session(linear_model(), threads=0)


def test_cpu_features_are_sorted_and_from_the_known_list():
    found = cpu_features()
    assert found == sorted(found)
    assert set(found) <= set(runtime._CPU_FLAGS)
