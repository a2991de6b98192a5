"""A file with the key names of each published family is recognised, whatever is wrapped around its state dict."""

from __future__ import annotations

import pytest
import torch

from compressor.checkpoint import load_checkpoint, recognise
from compressor.checkpoint.unwrapping import OUTER_KEYS, PREFIXES
from compressor.core.errors import UnknownArchitectureError
from compressor.core.registry import MODELS
from compressor.models.classifier import family_name
from compressor.models.families._foreign import recognise_nothing

MEMBERS = {
    "wideresnet-16-2": 10,
    "dm-wideresnet-10-1": 100,
    "dm-resnet18-0.125": 10,
    "resnet18-0.125": 3,
    "mobilenetv2-0.1": 10,
}


def test_every_family_that_keys_tell_is_among_those_tried_here():
    by_keys = {name for name in MODELS.members() if MODELS.get(name).recognise is not recognise_nothing}
    assert {family_name(name) for name in MEMBERS} == by_keys


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("wrap", ["flat", *OUTER_KEYS, *PREFIXES, "module.0.", "model.module.", "module.1.model."])
def test_a_file_of_each_family_is_recognised_in_every_wrapping(tmp_path, state_of, name, wrap):
    classes = MEMBERS[name]
    state = state_of(name, classes)
    document = {"epoch": 7, "best_acc": 0.5, wrap: state} if wrap in OUTER_KEYS else state
    if wrap.endswith("."):
        document = {f"{wrap}{key}": tensor for key, tensor in state.items()}
    torch.save(document, tmp_path / "teacher.pt")
    loaded = load_checkpoint(tmp_path / "teacher.pt")
    assert (loaded.spec.name, loaded.spec.classes) == (name, classes)
    found = loaded.classifier.network.state_dict()
    assert all(torch.equal(found[key], state[key]) for key in state)


STRANGERS = {
    "torchvision ResNet": "conv1 bn1 layer1.0.conv1 layer2.0.downsample.0 fc",
    "torchvision MobileNet": "features.0.0 features.1.conv.0.0 classifier.1",
    "pre-activation": "conv1 layer1.0.bn1 layer1.0.conv1 linear",
    "other than ResNet-18": "conv1 bn1 layer1.0.conv1 layer1.2.conv1 linear",
    "DeepMind pre-activation": "conv_2d layer_0.0.conv_2d_1 layer_0.2.conv_2d_1 logits",
    "VGG": "features.0 classifier",
}


@pytest.mark.parametrize("name", STRANGERS)
def test_a_family_known_by_sight_is_named_and_the_way_out_is_given(name):
    with pytest.raises(UnknownArchitectureError, match=name) as caught:
        recognise({f"{layer}.weight": torch.zeros(10, 8, 3, 3) for layer in STRANGERS[name].split()})
    assert "wideresnet-DEPTH-WIDTH" in caught.value.hint


def test_a_vision_transformer_is_known_by_its_class_token():
    with pytest.raises(UnknownArchitectureError, match="vision transformer"):
        recognise({"cls_token": torch.zeros(1, 1, 8), "head.weight": torch.zeros(10, 8)})


def test_torchvision_s_own_resnet_is_known_by_sight():
    torchvision = pytest.importorskip("torchvision")
    with pytest.raises(UnknownArchitectureError, match="torchvision ResNet"):
        recognise(torchvision.models.resnet18().state_dict())
    with pytest.raises(UnknownArchitectureError, match="torchvision MobileNet"):
        recognise(torchvision.models.mobilenet_v2().state_dict())


def test_keys_of_no_known_family_are_quoted():
    with pytest.raises(UnknownArchitectureError, match=r"start with a\.weight, b\.weight, c\.weight\."):
        recognise({f"{letter}.weight": torch.zeros(1) for letter in "abcd"})
