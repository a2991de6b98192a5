"""ONNX files on the device: onnxruntime's CUDA provider, the imported graph, and the verifier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from compressor.core.contracts import Split, SplitName
from compressor.core.errors import MissingDeviceError
from compressor.core.registry import ATTACKS
from compressor.core.types import Threat
from compressor.numerics.augment import to_float_tensor
from compressor.numerics.losses import cross_entropy
from compressor.numerics.randomness import make_generator
from exporters import verify
from exporters.artifact.sealing import ExportSettings, seal
from exporters.claim.claim import model_bytes
from exporters.claim.evidence import evidence_path
from exporters.differentiable.attackable import open_attackable
from exporters.differentiable.file_graph import open_graph
from exporters.differentiable.logit_agreement import compare_with_onnxruntime
from exporters.model_file.runtime import Provider, Session, SessionModule, open_session
from exporters.writing.onnx import check_parity, export_onnx

Near = Callable[..., None]
Pictures = tuple[Tensor, Tensor]
THREAT = Threat("Linf", "4/255")


@pytest.fixture
def proto(classifier: nn.Module) -> onnx.ModelProto:
    return export_onnx(classifier, 16)


@pytest.fixture
def provider(device: torch.device) -> Provider:
    """CUDA where onnxruntime has it; the CPU stands in for it where it stands in for the device."""
    return "cuda" if device.type == "cuda" else "cpu"


def opened(model: onnx.ModelProto, provider: Provider) -> Session:
    try:
        return open_session(model_bytes(model), provider=provider, threads=1)
    except MissingDeviceError as error:
        pytest.skip(f"onnxruntime has no CUDA provider here: {error.message}")


def test_onnxruntime_computes_what_the_cpu_computes(
    proto: onnx.ModelProto, provider: Provider, classifier: nn.Module, pictures: Pictures, near: Near
) -> None:
    x = to_float_tensor(pictures[0])
    session = opened(proto, provider)
    assert session.provider == provider
    found = torch.from_numpy(session(x.numpy()))
    near(found, torch.from_numpy(open_session(model_bytes(proto), threads=1)(x.numpy())))
    near(found, classifier(x))
    assert np.array_equal(found.numpy(), session(x.numpy()))


def test_a_classifier_of_the_device_is_exported_and_keeps_its_place(
    classifier: nn.Module, device: torch.device, pictures: Pictures, proto: onnx.ModelProto
) -> None:
    model = classifier.to(device)
    exported = export_onnx(model, 16)
    assert model_bytes(exported) == model_bytes(proto)
    parity = check_parity(model, exported, to_float_tensor(pictures[0].to(device)))
    assert parity.max_relative_error <= 1e-4
    assert {p.device for p in model.parameters()} == {device}


def test_the_imported_graph_passes_the_gate_on_the_device(
    proto: onnx.ModelProto, device: torch.device, classifier: nn.Module, pictures: Pictures, near: Near
) -> None:
    session = open_session(model_bytes(proto), threads=1)
    graph = open_graph(proto, session.input_layout).to(device)
    x, y = to_float_tensor(pictures[0]), pictures[1]
    assert compare_with_onnxruntime(session, graph, x.numpy()).passed
    near(graph(x.to(device)), classifier(x))

    def slope(model: nn.Module, where: torch.device) -> Tensor:
        leaf = x.to(where).requires_grad_()
        return torch.autograd.grad(cross_entropy(model(leaf), y.to(where)).sum(), leaf)[0].double().cpu()

    expected = slope(classifier, torch.device("cpu"))
    assert float((slope(graph, device) - expected).norm()) <= 1e-2 * float(expected.norm())


@pytest.mark.parametrize("name", ["pgd-sat", "apgd-ce", "square"])
def test_an_attack_on_a_file_is_judged_by_onnxruntime(
    name: str, proto: onnx.ModelProto, device: torch.device, provider: Provider, pictures: Pictures, agree: Any
) -> None:
    session = opened(proto, provider)
    x, y = to_float_tensor(pictures[0]).to(device), pictures[1].to(device)
    surrogate = open_attackable(session, proto, x)
    assert isinstance(surrogate.decider, SessionModule)
    attack: Any = ATTACKS.get(name)
    attack = replace(attack, queries=30) if name == "square" else replace(attack, steps=5)
    found = attack(surrogate, x, y, THREAT, make_generator(0))
    assert agree(found.broken, torch.from_numpy(session(found.x_adv.cpu().numpy())), y)


class Held:
    """The dataset of the claim."""

    name, class_names, image_size = "stripes", ("horizontal", "vertical", "plain"), 16

    def __init__(self, split: Split) -> None:
        self._split = split

    def has(self, split: SplitName) -> bool:
        return split == "test"

    def load(self, split: SplitName) -> Split:
        return self._split


def test_a_sealed_file_is_verified_on_the_device_as_on_the_cpu(
    proto: onnx.ModelProto, provider: Provider, stripes: Any, tmp_path: Path
) -> None:
    opened(proto, provider)
    sealed = seal(proto, Held(stripes.load("test")), THREAT, ExportSettings(samples=24, threads=1))
    path = tmp_path / "model.onnx"
    path.write_bytes(sealed.model)
    evidence_path(path).write_bytes(sealed.evidence)
    here = verify(path, threads=1, seed=7, suite="replay")
    there = verify(path, threads=1, seed=7, suite="replay", provider=provider)
    assert there.exit_code == here.exit_code
    assert [(check.name, check.status) for check in there.checks] == [
        (check.name, check.status) for check in here.checks
    ]
