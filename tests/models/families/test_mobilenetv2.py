from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.core.types import ModelSpec
from compressor.models.classifier import build_empty_network, count_parameters, family_of
from compressor.models.families.mobilenetv2 import channels_of
from tests.support.networks import batch_norm_keys, opened


def test_the_paper_size_has_its_parameters():
    assert count_parameters(build_empty_network(ModelSpec("mobilenetv2", 10))) == 2_296_922


def test_its_keys_and_main_shapes_are_those_of_the_public_port():
    state = build_empty_network(ModelSpec("mobilenetv2", 10)).state_dict()
    expected = (
        {"conv1.weight", "conv2.weight", "linear.weight", "linear.bias"}
        | batch_norm_keys("bn1")
        | batch_norm_keys("bn2")
    )
    for block in range(17):
        for i in (1, 2, 3):
            expected |= {f"layers.{block}.conv{i}.weight"} | batch_norm_keys(f"layers.{block}.bn{i}")
    # The shortcut is projected where the channels change at stride 1.
    for block in (0, 1, 10, 16):
        expected |= {f"layers.{block}.shortcut.0.weight"} | batch_norm_keys(f"layers.{block}.shortcut.1")
    assert set(state) == expected
    assert state["conv2.weight"].shape == (1280, 320, 1, 1)
    assert state["layers.1.conv2.weight"].shape == (96, 1, 3, 3)


def test_its_forward_at_32_pixels_is_the_port_s(network):
    model = network("mobilenetv2-0.1", classes=5)
    state, norm, x = opened(model)
    out = F.relu(norm(F.conv2d(x, state["conv1.weight"], padding=1), "bn1"))
    strides = [1, 1, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1]
    for block, stride in enumerate(strides):
        name = f"layers.{block}"
        inner = F.relu(norm(F.conv2d(out, state[f"{name}.conv1.weight"]), f"{name}.bn1"))
        depthwise = state[f"{name}.conv2.weight"]
        inner = F.conv2d(inner, depthwise, stride=stride, padding=1, groups=len(depthwise))
        inner = norm(F.conv2d(F.relu(norm(inner, f"{name}.bn2")), state[f"{name}.conv3.weight"]), f"{name}.bn3")
        if stride == 1:
            if f"{name}.shortcut.0.weight" in state:
                out = norm(F.conv2d(out, state[f"{name}.shortcut.0.weight"]), f"{name}.shortcut.1")
            inner = inner + out
        out = inner
    out = F.avg_pool2d(F.relu(norm(F.conv2d(out, state["conv2.weight"]), "bn2")), 4).flatten(1)
    torch.testing.assert_close(model(x), F.linear(out, state["linear.weight"], state["linear.bias"]))


def test_a_quarter_of_the_width_follows_the_stated_rule():
    assert channels_of(0.25) == (8, 8, 8, 8, 16, 24, 40, 80, 1280)
    assert channels_of(1.0) == (32, 16, 24, 32, 64, 96, 160, 320, 1280)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 8000))
def test_channels_are_multiples_of_8_near_the_exact_number(thousandths):
    multiplier = thousandths / 1000
    for channels, full in zip(channels_of(multiplier)[:-1], channels_of(1.0)[:-1], strict=True):
        assert channels % 8 == 0
        assert channels >= 0.9 * multiplier * full
        # At most 4 above from rounding up; 8 where rounding down lost more than 10 %; at least 8 channels.
        assert channels <= max(8, multiplier * full + 8)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 2000))
def test_any_width_is_recognised_from_its_shapes(thousandths):
    name = f"mobilenetv2-{thousandths / 1000:g}"
    state = build_empty_network(ModelSpec(name, 10)).state_dict()
    again = build_empty_network(ModelSpec(family_of(name).recognise(state).name, 10)).state_dict()
    assert {k: v.shape for k, v in again.items()} == {k: v.shape for k, v in state.items()}


@pytest.mark.parametrize("name", ["mobilenetv2", "mobilenetv2-0.25", "mobilenetv2-0.5", "mobilenetv2-0.35"])
def test_common_widths_keep_their_name(name):
    assert family_of(name).recognise(build_empty_network(ModelSpec(name, 10)).state_dict()).name == name
