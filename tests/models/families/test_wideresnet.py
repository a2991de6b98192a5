from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from compressor.core.errors import UsageError
from compressor.core.types import ModelSpec
from compressor.models.classifier import build_classifier, build_empty_network, count_parameters, family_of
from tests.support.networks import batch_norm_keys, block_keys, opened


def test_34_10_has_its_parameters_without_sub_block1():
    assert count_parameters(build_empty_network(ModelSpec("wideresnet-34-10", 10))) == 46_160_474


def test_its_keys_are_those_of_the_trades_release():
    expected = {"conv1.weight", "fc.weight", "fc.bias"} | batch_norm_keys("bn1")
    for stage in (1, 2, 3):
        for block in (0, 1):
            expected |= block_keys(f"block{stage}.layer.{block}", ("conv1", "conv2"), ("bn1", "bn2"))
        expected |= {f"block{stage}.layer.0.convShortcut.weight"}
    assert set(build_empty_network(ModelSpec("wideresnet-16-2", 10)).state_dict()) == expected


def test_its_forward_is_the_release_s(network):
    model = network("wideresnet-16-1", classes=4)
    state, norm, x = opened(model)

    def norm_relu(x, name):
        return F.relu(norm(x, name))

    out = F.conv2d(x, state["conv1.weight"], padding=1)
    for stage in (1, 2, 3):
        for block in (0, 1):
            name, stride = f"block{stage}.layer.{block}", 2 if stage > 1 and block == 0 else 1
            equal = f"{name}.convShortcut.weight" not in state
            activated = norm_relu(out, f"{name}.bn1")
            inner = F.conv2d(activated, state[f"{name}.conv1.weight"], stride=stride, padding=1)
            inner = F.conv2d(norm_relu(inner, f"{name}.bn2"), state[f"{name}.conv2.weight"], padding=1)
            shortcut = out if equal else F.conv2d(activated, state[f"{name}.convShortcut.weight"], stride=stride)
            out = shortcut + inner
    out = F.avg_pool2d(norm_relu(out, "bn1"), 8).flatten(1)
    torch.testing.assert_close(model(x), F.linear(out, state["fc.weight"], state["fc.bias"]))


def test_weights_start_with_he_variance_by_fan_out():
    network = build_classifier(ModelSpec("wideresnet-10-4", 10), seed=0).network
    weight = network.block3.layer[0].conv2.weight.detach()
    assert float(weight.std()) == pytest.approx(math.sqrt(2 / (9 * 256)), rel=0.01)
    assert torch.equal(network.fc.bias, torch.zeros(10))


def test_sub_block1_is_left_out():
    state = dict(build_empty_network(ModelSpec("wideresnet-16-1", 10)).state_dict())
    copies = {f"sub_block1.{key.removeprefix('block1.')}": value for key, value in state.items() if "block1" in key}
    found = family_of("wideresnet").recognise(state | copies)
    assert copies
    assert found.name == "wideresnet-16-1"
    assert set(found.state) == set(state)


NO_NETWORK = ["", "-34", "-33-10", "-4-1", "-34-0", "-34-99", "-9994-1", "-34-10-2"]


@pytest.mark.parametrize("numbers", NO_NETWORK)
def test_numbers_that_make_no_network_are_refused(numbers):
    with pytest.raises(UsageError, match="wideresnet") as caught:
        build_empty_network(ModelSpec(f"wideresnet{numbers}", 10))
    assert "wideresnet-34-10" in caught.value.hint
