from __future__ import annotations

import os
import pwd

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from compressor.core.errors import ExportError, UnreadableModelError, UsageError
from exporters.model_file.opset import OPSET
from exporters.model_file.runtime import open_session
from exporters.writing.onnx import (
    check_parity,
    export_onnx,
    get_metadata,
    serialise,
    set_metadata,
)


class Net(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(3, 8, 3, bias=False)
            self.norm = nn.BatchNorm2d(8)
            self.norm.running_mean.normal_()
            self.norm.running_var.uniform_(0.5, 2)
            self.head = nn.Linear(8, 10)
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.4), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.conv(F.pad((x - self.mean) / 0.25, (0, 1, 0, 1)))))
        return self.head(x.mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def net() -> Net:
    return Net()


@pytest.fixture(scope="module")
def model(net: Net) -> onnx.ModelProto:
    return export_onnx(net, 16)


IMAGES = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(3))


def test_the_export_is_one_checked_message_with_the_promised_form(model):
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert model.producer_name == "pytorch"
    batch, *sizes = model.graph.input[0].type.tensor_type.shape.dim
    assert batch.dim_param
    assert [size.dim_value for size in sizes] == [3, 16, 16]
    assert (model.graph.input[0].name, model.graph.output[0].name) == ("input", "logits")


def test_nothing_in_the_file_names_where_or_by_whom_it_was_made(model):
    data = serialise(model)
    for word in (b"site-packages", b".py", b"/home", b"File ", b"stack_trace", b"pkg.torch"):
        assert word not in data, word
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)


def test_equal_weights_give_equal_bytes_and_other_weights_do_not(model):
    assert serialise(export_onnx(Net(), 16)) == serialise(model)
    assert serialise(export_onnx(Net(seed=1), 16)) != serialise(model)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_file_gives_the_logits_of_torch_at_any_batch_size(net, model, count):
    logits = open_session(serialise(model), threads=1)(IMAGES[:count].numpy())
    with torch.no_grad():
        expected = Net().eval()(IMAGES[:count]).numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_export_leaves_the_classifier_the_environment_and_the_streams_alone(capfd):
    net = Net().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    environment, state = dict(os.environ), torch.get_rng_state()
    export_onnx(net, 16)
    assert net.training
    assert net.norm.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert dict(os.environ) == environment
    assert torch.equal(torch.get_rng_state(), state)
    assert capfd.readouterr() == ("", "")


def test_a_user_without_a_passwd_entry_can_export(monkeypatch):
    def missing(*_: object) -> None:
        raise KeyError("getpwuid(): uid not found")

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "HOME", "TORCHINDUCTOR_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", missing)
    assert export_onnx(Net(), 16).graph.node
    assert "USER" not in os.environ


def test_parity_holds_for_the_export(net, model):
    parity = check_parity(net, model, IMAGES)
    assert parity.images == 5
    assert parity.argmax_agreement == 1.0
    assert parity.max_relative_error < 1e-5


@pytest.mark.parametrize("as_bytes", [False, True])
def test_parity_fails_for_another_classifier(model, as_bytes):
    with pytest.raises(ExportError, match="does not compute"):
        check_parity(Net(seed=1), serialise(model) if as_bytes else model, IMAGES.numpy())


def test_parity_fails_where_one_class_is_off_by_more_than_the_tolerance(model):
    net = Net()
    with torch.no_grad():
        net.head.bias[3] += 1e-3
    with pytest.raises(ExportError):
        check_parity(net, model, IMAGES)


def test_parity_of_no_images_is_refused(net, model):
    with pytest.raises(UsageError):
        check_parity(net, model, IMAGES[:0])


def test_a_network_with_a_fixed_batch_is_refused():
    class Fixed(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).reshape(2, 10)

    with pytest.raises(ExportError):
        export_onnx(Fixed(), 16)


def test_an_error_in_the_network_is_a_plain_sentence():
    with pytest.raises(ExportError) as caught:
        export_onnx(nn.Linear(7, 2), 16)
    assert caught.value.message.endswith(".")
    assert "\n" not in caught.value.message


def test_an_image_size_must_be_positive(net):
    with pytest.raises(UsageError):
        export_onnx(net, 0)


def test_metadata_is_kept_sorted_and_replaced(model):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    assert get_metadata(copy, "b") is None
    set_metadata(copy, "b", "1")
    set_metadata(copy, "a", "2")
    set_metadata(copy, "b", "3")
    assert [(entry.key, entry.value) for entry in copy.metadata_props] == [("a", "2"), ("b", "3")]
    assert get_metadata(copy, "b") == "3"


def test_metadata_given_twice_is_refused():
    model = onnx.ModelProto()
    model.metadata_props.add(key="a", value="1")
    model.metadata_props.add(key="a", value="2")
    with pytest.raises(UnreadableModelError):
        get_metadata(model, "a")
