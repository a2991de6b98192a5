from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from compressor.core.errors import UsageError
from compressor.core.types import ModelSpec
from compressor.models.classifier import build_empty_network, count_parameters, family_of
from tests.support.networks import batch_norm_keys, block_keys, opened


def test_the_paper_size_has_its_parameters():
    assert count_parameters(build_empty_network(ModelSpec("resnet18", 10))) == 11_173_962


def test_its_keys_are_those_of_the_public_port():
    expected = {"conv1.weight", "linear.weight", "linear.bias"} | batch_norm_keys("bn1")
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            expected |= block_keys(f"layer{stage}.{block}", ("conv1", "conv2"), ("bn1", "bn2"))
    for stage in (2, 3, 4):
        expected |= {f"layer{stage}.0.shortcut.0.weight"} | batch_norm_keys(f"layer{stage}.0.shortcut.1")
    assert set(build_empty_network(ModelSpec("resnet18-0.125", 10)).state_dict()) == expected


def test_its_forward_is_the_port_s(network):
    model = network("resnet18-0.125", classes=7)
    state, norm, x = opened(model)
    out = F.relu(norm(F.conv2d(x, state["conv1.weight"], padding=1), "bn1"))
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            inner = F.conv2d(out, state[f"{name}.conv1.weight"], stride=stride, padding=1)
            inner = F.conv2d(F.relu(norm(inner, f"{name}.bn1")), state[f"{name}.conv2.weight"], padding=1)
            if stride == 2:
                out = norm(F.conv2d(out, state[f"{name}.shortcut.0.weight"], stride=2), f"{name}.shortcut.1")
            out = F.relu(norm(inner, f"{name}.bn2") + out)
    expected = F.linear(F.avg_pool2d(out, 4).flatten(1), state["linear.weight"], state["linear.bias"])
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize(("name", "channels"), [("resnet18-0.5", 32), ("resnet18-0.25", 16), ("resnet18-1.5", 96)])
def test_the_width_scales_every_stage(name, channels):
    state = build_empty_network(ModelSpec(name, 10)).state_dict()
    assert [state[f"layer{i}.1.conv2.weight"].shape[0] for i in (1, 2, 3, 4)] == [channels * k for k in (1, 2, 4, 8)]
    assert family_of(name).recognise(state).name == name


@pytest.mark.parametrize(
    "name", ["resnet18-0", "resnet18-", "resnet18-9", "resnet18-half", "resnet18-1e2", "resnet18-٣"]
)
def test_a_width_that_makes_no_network_is_refused(name):
    with pytest.raises(UsageError, match="width"):
        build_empty_network(ModelSpec(name, 10))


def test_an_activation_it_never_had_is_refused():
    with pytest.raises(UsageError, match="silu"):
        build_empty_network(ModelSpec("resnet18", 10, activation="silu"))
