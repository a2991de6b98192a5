"""What an attack sees of a file: gradients from the graph, decisions by onnxruntime, and neither without agreement."""

from __future__ import annotations

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from compressor.core.errors import UntrustedGradientsError
from compressor.core.registry import ATTACKS
from compressor.core.types import Threat
from compressor.frozen import confirm_misclassified
from compressor.numerics.randomness import make_generator
from exporters.claim.claim import model_bytes
from exporters.differentiable.attackable import open_attackable
from exporters.model_file.runtime import Session, SessionModule, open_session
from exporters.writing.onnx import export_onnx

SIDE = 8


def network() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 5)
    ).eval()
    generator = make_generator(0, "attackable test")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return network()


@pytest.fixture(scope="module")
def proto(model: nn.Module) -> onnx.ModelProto:
    return export_onnx(model, SIDE)


@pytest.fixture(scope="module")
def session(proto: onnx.ModelProto) -> Session:
    return open_session(model_bytes(proto), threads=1)


@pytest.fixture
def x() -> Tensor:
    return torch.rand(12, 3, SIDE, SIDE, generator=make_generator(1, "attackable test"))


def test_onnxruntime_decides_and_the_graph_has_the_checkpoint_s_gradient(
    model: nn.Module, proto: onnx.ModelProto, session: Session, x: Tensor
) -> None:
    surrogate = open_attackable(session, proto, x)
    assert isinstance(surrogate.decider, SessionModule)
    assert surrogate.chunk
    y = model(x).argmax(1)
    gradients = []
    for module in (model, surrogate):
        leaf = x.clone().requires_grad_()
        gradients.append(torch.autograd.grad(nn.functional.cross_entropy(module(leaf), y), leaf)[0])
    torch.testing.assert_close(gradients[1].contiguous(), gradients[0], rtol=1e-4, atol=1e-6)
    assert not confirm_misclassified(surrogate, x, y, surrogate(x)).any()
    assert confirm_misclassified(surrogate, x, (y + 1) % 5, surrogate(x)).all()


@pytest.mark.parametrize("name", ["apgd-ce", "apgd-t", "fab-t", "square"])
def test_an_attack_breaks_the_file_where_it_breaks_the_checkpoint(
    name: str, model: nn.Module, proto: onnx.ModelProto, session: Session, x: Tensor
) -> None:
    y, threat = model(x).argmax(1), Threat("Linf", "0.4")
    of_the_checkpoint = ATTACKS.get(name)(model, x, y, threat, make_generator(2)).broken
    of_the_file = ATTACKS.get(name)(open_attackable(session, proto, x), x, y, threat, make_generator(2)).broken
    assert of_the_checkpoint.any()
    assert torch.equal(of_the_checkpoint, of_the_file)


def test_a_graph_that_computes_something_else_has_no_say(proto: onnx.ModelProto, session: Session, x: Tensor) -> None:
    other = onnx.ModelProto()
    other.CopyFrom(proto)
    weights = next(tensor for tensor in other.graph.initializer if len(tensor.dims) == 4)
    changed = numpy_helper.to_array(weights) * 1.01
    weights.CopyFrom(numpy_helper.from_array(changed, weights.name))
    with pytest.raises(UntrustedGradientsError, match="can't be trusted") as refused:
        open_attackable(session, other, x)
    assert "checkpoint" in refused.value.hint
    assert refused.value.exit_code == 3
