from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from compressor.core.types import ModelSpec
from compressor.models.classifier import build_empty_network, family_of
from tests.support.networks import batch_norm_keys, block_keys, opened

ACTIVATIONS = {"relu": F.relu, "silu": F.silu}


def test_its_keys_are_those_of_the_deepmind_release():
    expected = {"conv_2d.weight", "logits.weight", "logits.bias"} | batch_norm_keys("batchnorm")
    for stage in (0, 1, 2, 3):
        for block in (0, 1):
            expected |= block_keys(f"layer_{stage}.{block}", ("conv_2d_1", "conv_2d_2"), ("batchnorm_0", "batchnorm_1"))
    for stage in (1, 2, 3):
        expected |= {f"layer_{stage}.0.shortcut.weight"}
    state = build_empty_network(ModelSpec("dm-resnet18", 10)).state_dict()
    assert set(state) == expected
    assert state["layer_1.0.shortcut.weight"].shape == (128, 64, 3, 3)


@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_its_forward_is_the_release_s(network, activation):
    model = network("dm-resnet18-0.125", classes=4, activation=activation)
    state, norm, x = opened(model)

    def norm_act(x, name):
        return ACTIVATIONS[activation](norm(x, name))

    out = F.conv2d(x, state["conv_2d.weight"], padding=1)
    for stage in (0, 1, 2, 3):
        for block in (0, 1):
            name, stride = f"layer_{stage}.{block}", 2 if stage and block == 0 else 1
            padding = (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1)
            inner = F.pad(norm_act(out, f"{name}.batchnorm_0"), padding)
            inner = F.conv2d(inner, state[f"{name}.conv_2d_1.weight"], stride=stride)
            inner = F.conv2d(norm_act(inner, f"{name}.batchnorm_1"), state[f"{name}.conv_2d_2.weight"], padding=1)
            if f"{name}.shortcut.weight" in state:
                out = F.conv2d(F.pad(out, padding), state[f"{name}.shortcut.weight"], stride=stride)
            out = out + inner
    out = F.avg_pool2d(norm_act(out, "batchnorm"), 4).flatten(1)
    torch.testing.assert_close(model(x), F.linear(out, state["logits.weight"], state["logits.bias"]))


def test_it_is_recognised_with_its_width():
    state = build_empty_network(ModelSpec("dm-resnet18-0.25", 7)).state_dict()
    found = family_of("dm-resnet18").recognise(state)
    assert (found.name, found.classes, found.activations) == ("dm-resnet18-0.25", 7, ("silu", "relu"))
