"""Files made to harm whoever opens them: each is refused in a sentence, soon, and nothing else on the disk is read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import exporters
from compressor.core.errors import MissingInputError, UnreadableModelError
from exporters.claim.claim import model_bytes, model_digest, read_claim, with_claim
from exporters.claim.evidence import evidence_path
from exporters.isolation import verify_isolated
from exporters.model_file.structure import Limits, check_structure, load_untrusted
from exporters.verification.request import Request

verify = partial(exporters.verify, isolate=False)

Change = Callable[[onnx.ModelProto], None]


@pytest.fixture
def files(convolving: Path, tmp_path: Path) -> Path:
    for path in (convolving, evidence_path(convolving)):
        shutil.copy(path, tmp_path / path.name)
    return tmp_path / convolving.name


def reseal(path: Path, change: Change) -> None:
    """Change the model, and let its digests be right."""
    model = onnx.ModelProto.FromString(path.read_bytes())
    claim = read_claim(model)
    assert claim is not None
    change(model)
    path.write_bytes(model_bytes(with_claim(model, replace(claim, model=model_digest(model)).sealed())))


def weights(model: onnx.ModelProto) -> TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == "W")


# What is no plain description of a network


def opset(number: int) -> Change:
    return lambda model: setattr(model.opset_import[0], "version", number)


def ir_version(number: int) -> Change:
    return lambda model: setattr(model, "ir_version", number)


def raw_data(length: int) -> Change:
    return lambda model: setattr(weights(model), "raw_data", b"\0" * length)


def external(location: str) -> Change:
    def change(model: onnx.ModelProto) -> None:
        weights(model).ClearField("raw_data")
        weights(model).data_location = TensorProto.EXTERNAL
        weights(model).external_data.add(key="location", value=location)

    return change


def external_in_a_constant(model: onnx.ModelProto) -> None:
    tensor = TensorProto(name="c", dims=[1], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="pipe")
    node = model.graph.node.add(op_type="Constant", output=["c"])
    node.attribute.append(helper.make_attribute("value", tensor))


def twice(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(weights(model))


def output_twice(model: onnx.ModelProto) -> None:
    model.graph.node.append(model.graph.node[0])


def circle(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = model.graph.node[1].output[0]


def weights_in_bulk(model: onnx.ModelProto) -> None:
    model.graph.initializer.extend(TensorProto(name=f"w{number}") for number in range(60_000))


def metadata_in_bulk(model: onnx.ModelProto) -> None:
    for number in range(17):
        model.metadata_props.add(key=f"{number}", value="x" * (1 << 20))


def control_characters(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "\x1b[31mRelu\x07\r\n"


@pytest.mark.parametrize(
    "change",
    [
        *(opset(0), opset(9999), opset(-1), ir_version(0), ir_version(999), ir_version(2**62)),
        *(raw_data(0), raw_data(7), raw_data(1 << 16)),
        *(external("pipe"), external("../pipe"), external("/dev/zero"), external_in_a_constant),
        *(twice, output_twice, circle, weights_in_bulk, metadata_in_bulk, control_characters),
    ],
)
def test_it_is_undecided_in_a_sentence(change: Change, files: Path) -> None:
    os.mkfifo(files.parent / "pipe")  # whoever opened it would wait for ever
    model = onnx.ModelProto.FromString(files.read_bytes())
    change(model)
    files.write_bytes(model.SerializeToString())
    verdict = verify(files, threads=1)
    assert verdict.exit_code == 3
    (check,) = verdict.checks
    assert check.name == "structure"
    assert "internal error" not in check.detail
    assert check.detail.isprintable()


@pytest.mark.parametrize("name", [b"flat", b"logits", b"compress.claim"])
def test_names_that_are_no_text(name: bytes, files: Path) -> None:
    files.write_bytes(files.read_bytes().replace(name, b"\xff" * len(name)))
    with pytest.raises(UnreadableModelError, match="not text"):
        load_untrusted(files)


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_weights_that_are_no_numbers_never_hold(value: float, files: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        weights(model).CopyFrom(numpy_helper.from_array(np.full(weights(model).dims, value, np.float32), "W"))

    reseal(files, change)
    assert verify(files, threads=1, seed=1).exit_code in (1, 3)


def test_large_and_strange_but_honest() -> None:
    """20,000 operators, names of a megabyte, and a hundred megabytes of prose are slow at worst."""
    names = ["input", *(f"r{number}" for number in range(19_900)), "n" * (1 << 20), "flat"]
    nodes = [helper.make_node("Relu", [a], [b]) for a, b in pairwise(names[:-1])]
    nodes += [helper.make_node("Flatten", [names[-2]], ["flat"]), helper.make_node("MatMul", ["flat", "W"], ["logits"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 2, 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(np.ones((12, 2), np.float32), "W")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    model.doc_string = "x" * 100_000_000
    findings = check_structure(model, Limits(), file_bytes=model.ByteSize())
    assert {finding.status for finding in findings} == {"passed"}


# What is no file


def test_a_pipe_or_a_device_in_the_models_place(files: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "zero.onnx").symlink_to("/dev/zero")
    for name in ("pipe.onnx", "zero.onnx"):
        with pytest.raises(MissingInputError, match="not a regular file"):
            verify(tmp_path / name)


def test_a_pipe_in_the_evidences_place(files: Path) -> None:
    evidence_path(files).unlink()
    os.mkfifo(evidence_path(files))
    assert verify(files, threads=1).exit_code == 3


def test_a_link_to_the_model_is_the_model(files: Path, tmp_path: Path) -> None:
    (tmp_path / "link.onnx").symlink_to(files)
    verdict = verify(tmp_path / "link.onnx", evidence_file=evidence_path(files), suite="replay", threads=1)
    assert verdict.exit_code == 0


# Few bytes that ask for much memory


def tile(model: onnx.ModelProto) -> None:
    _widen(model, "Tile", [1, 1, 300, 300])


def pad(model: onnx.ModelProto) -> None:
    _widen(model, "Pad", [0, 0, 0, 0, 0, 0, 30_000, 30_000])


def expand(model: onnx.ModelProto) -> None:
    """Of constants only, so that it is an optimiser that would compute it, before any image is seen."""
    numbers = {"one": np.ones(1, np.float32), "much": np.array([100_000, 100_000])}
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in numbers.items())
    _before(
        model,
        helper.make_node("Expand", ["one", "much"], ["wide"]),
        helper.make_node("ReduceMax", ["wide"], ["single"], keepdims=0),
        helper.make_node("Mul", ["input", "single"], ["before"]),
    )


def _widen(model: onnx.ModelProto, operator: str, numbers: list[int]) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array(numbers), "numbers"))
    _before(
        model,
        helper.make_node(operator, ["input", "numbers"], ["wide"]),
        helper.make_node("GlobalMaxPool", ["wide"], ["pooled"]),
        helper.make_node("Mul", ["input", "pooled"], ["before"]),
    )


def _before(model: onnx.ModelProto, *nodes: onnx.NodeProto) -> None:
    """Put operators between the input and the rest, which then takes ``before``."""
    model.graph.node[0].input[0] = "before"
    for node in reversed(nodes):
        model.graph.node.insert(0, node)


@pytest.mark.parametrize("change", [tile, pad, expand])
def test_an_operator_that_asks_for_gigabytes(change: Change, files: Path) -> None:
    reseal(files, change)
    assert files.stat().st_size < 10_000
    verdict = verify_isolated(Request(files, seed=1, threads=1, memory_limit=10**9))
    assert verdict.exit_code == 3
    assert verdict.first_problem is not None
    assert "memory" in verdict.first_problem.detail
    assert "--memory-limit" in verdict.first_problem.cause
