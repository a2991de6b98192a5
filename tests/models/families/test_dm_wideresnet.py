from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from compressor.core.types import ModelSpec
from compressor.models.classifier import build_empty_network, count_parameters, family_of
from compressor.models.families._layers import pad_same
from tests.support.networks import batch_norm_keys, block_keys, opened

ACTIVATIONS = {"relu": F.relu, "silu": F.silu}


def test_it_has_as_many_parameters_as_the_other_wideresnet():
    assert count_parameters(build_empty_network(ModelSpec("dm-wideresnet-34-10", 10))) == 46_160_474


def test_its_keys_are_those_of_the_deepmind_release():
    expected = {"init_conv.weight", "logits.weight", "logits.bias"} | batch_norm_keys("batchnorm")
    for group in (0, 1, 2):
        for block in (0, 1):
            expected |= block_keys(f"layer.{group}.block.{block}", ("conv_0", "conv_1"), ("batchnorm_0", "batchnorm_1"))
        expected |= {f"layer.{group}.block.0.shortcut.weight"}
    assert set(build_empty_network(ModelSpec("dm-wideresnet-16-2", 10)).state_dict()) == expected


@pytest.mark.parametrize("side", [8, 10])
def test_stride_2_padding_is_below_and_right_only(side):
    x = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    convolution = nn.Conv2d(3, 4, kernel_size=3, stride=2, bias=False)
    # The oracle reads each 3 x 3 window from a canvas that continues with zeros beyond the last row and column.
    canvas = torch.zeros(2, 3, side + 1, side + 1)
    canvas[:, :, :side, :side] = x
    expected = torch.empty(2, 4, side // 2, side // 2)
    for row in range(side // 2):
        for column in range(side // 2):
            window = canvas[:, :, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
            expected[:, :, row, column] = torch.einsum("bcij,ocij->bo", window, convolution.weight.detach())
    torch.testing.assert_close(convolution(pad_same(x, 2)), expected, rtol=1e-4, atol=1e-5)


def test_stride_1_padding_is_one_on_every_side():
    x = torch.ones(1, 1, 2, 2)
    assert torch.equal(pad_same(x, 1), F.pad(x, (1, 1, 1, 1)))


@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_its_forward_is_the_release_s(network, activation):
    model = network("dm-wideresnet-16-1", classes=4, activation=activation)
    state, norm, x = opened(model)

    def norm_act(x, name):
        return ACTIVATIONS[activation](norm(x, name))

    out = F.conv2d(x, state["init_conv.weight"], padding=1)
    for group in (0, 1, 2):
        for block in (0, 1):
            name, stride = f"layer.{group}.block.{block}", 2 if group and block == 0 else 1
            activated = norm_act(out, f"{name}.batchnorm_0")
            padded = F.pad(activated, (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1))
            inner = F.conv2d(padded, state[f"{name}.conv_0.weight"], stride=stride)
            inner = F.conv2d(norm_act(inner, f"{name}.batchnorm_1"), state[f"{name}.conv_1.weight"], padding=1)
            if f"{name}.shortcut.weight" in state:
                out = F.conv2d(activated, state[f"{name}.shortcut.weight"], stride=stride)
            out = out + inner
    out = F.avg_pool2d(norm_act(out, "batchnorm"), 8).flatten(1)
    torch.testing.assert_close(model(x), F.linear(out, state["logits.weight"], state["logits.bias"]))


def test_it_leaves_the_activation_open_with_silu_first():
    state = build_empty_network(ModelSpec("dm-wideresnet-10-1", 10)).state_dict()
    found = family_of("dm-wideresnet").recognise(state)
    assert found.activations == ("silu", "relu")
    assert found.normalizes
