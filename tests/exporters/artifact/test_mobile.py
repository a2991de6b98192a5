"""What phones' accelerators could take of a real export; and that asking costs an export nothing, whatever happens."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from exporters.artifact.mobile import MobileUsability, mobile_usability
from exporters.precision.integer import to_int8
from exporters.writing.onnx import export_onnx, serialise

SIZE = 8


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return export_onnx(nn.Sequential(*layers).eval(), SIZE)


def test_a_dynamic_batch_keeps_accelerators_away_and_a_fixed_one_does_not(model: onnx.ModelProto) -> None:
    found = mobile_usability(serialise(model))
    assert found.reason is None
    assert set(found.accelerators) == {"nnapi", "coreml_neural_network", "coreml_ml_program"}
    for accelerator in found.accelerators.values():
        assert accelerator.as_it_is.taken == 0
        assert accelerator.as_it_is.suits == "no"
        assert accelerator.with_fixed_batch is not None
        assert accelerator.with_fixed_batch.operators == accelerator.as_it_is.operators == len(model.graph.node)
    nnapi = found.accelerators["nnapi"]
    assert nnapi.lacks == ()
    assert str(nnapi.with_fixed_batch) == f"yes: {len(model.graph.node)} of {len(model.graph.node)} in 1 part"
    assert found.to_json()["mobile"]["nnapi"]["as_it_is"]["parts"] == 0


def test_a_static_file_is_taken_as_it_is(model: onnx.ModelProto) -> None:
    static = onnx.ModelProto.FromString(serialise(model))
    for end in (static.graph.input[0], static.graph.output[0]):
        end.type.tensor_type.shape.dim[0].dim_value = 1
    del static.graph.value_info[:]
    nnapi = mobile_usability(serialise(static)).accelerators["nnapi"]
    assert nnapi.with_fixed_batch is None
    assert nnapi.as_it_is.taken == nnapi.as_it_is.operators > 0


def test_coreml_has_no_eight_bits(model: onnx.ModelProto) -> None:
    found = mobile_usability(serialise(to_int8(model, np.random.default_rng(0).random((8, 3, SIZE, SIZE), np.float32))))
    assert {"DequantizeLinear", "QuantizeLinear"} <= set(found.accelerators["coreml_ml_program"].lacks)
    assert found.accelerators["nnapi"].lacks == ()


def test_nothing_is_printed_and_nothing_is_written(
    model: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.onnx").write_bytes(serialise(model))
    mobile_usability((tmp_path / "model.onnx").read_bytes())
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_where_the_tool_is_absent_there_is_a_reason(model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime.tools.mobile_helpers", None)
    found = mobile_usability(serialise(model))
    assert found == MobileUsability({}, "the installed onnxruntime has no tools for phones")
    assert found.to_json() == {"mobile": None, "mobile_reason": found.reason}


def test_whatever_goes_wrong_is_a_reason() -> None:
    found = mobile_usability(b"no model\x1b[2J")
    assert found.to_json()["mobile"] is None
    assert found.reason
    assert found.reason.isprintable()
