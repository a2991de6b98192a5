from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.core.errors import ClassMismatchError, UnknownNameError, UsageError
from compressor.core.types import ModelSpec, Normalization
from compressor.models.classifier import (
    Classifier,
    build_classifier,
    build_empty_network,
    check_classes,
    count_parameters,
    family_name,
)

SMALL = ModelSpec("resnet18-0.125", 10)
WHITENING = Normalization((0.1, 0.2, 0.3), (0.5, 0.25, 2.0))


def test_normalisation_happens_inside_and_by_channel():
    spec = ModelSpec("resnet18-0.125", 10, normalization=WHITENING)
    x = torch.rand(2, 3, 8, 8)
    seen = Classifier(spec, nn.Identity())(x)
    for channel, (mean, std) in enumerate(zip(WHITENING.mean, WHITENING.std, strict=True)):
        torch.testing.assert_close(seen[:, channel], (x[:, channel] - mean) / std)


def test_without_normalisation_the_network_sees_the_very_input():
    x = torch.rand(2, 3, 8, 8)
    assert Classifier(SMALL, nn.Identity())(x) is x


def test_normalisation_moves_with_the_module_and_is_not_in_its_state():
    classifier = Classifier(ModelSpec("x", 10, normalization=WHITENING), nn.Identity())
    assert classifier.state_dict() == {}
    assert classifier.to(torch.float64).mean.dtype == torch.float64


def test_a_seed_fixes_the_weights_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    first, again, other = (build_classifier(SMALL, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["network.conv1.weight"], other["network.conv1.weight"])


def test_without_a_seed_the_global_generator_decides():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        first = build_classifier(SMALL).state_dict()
        second = build_classifier(SMALL).state_dict()
    assert not torch.equal(first["network.conv1.weight"], second["network.conv1.weight"])


def test_an_empty_network_takes_no_memory():
    assert {parameter.device.type for parameter in build_empty_network(SMALL).parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("name", "family"),
    [("resnet18", "resnet18"), ("resnet18-0.5", "resnet18"), ("dm-wideresnet-28-10", "dm-wideresnet"),
     ("wideresnet-34-10", "wideresnet"), ("dm-resnet18", "dm-resnet18")],
)  # fmt: skip
def test_the_longest_family_name_is_taken(name, family):
    assert family_name(name) == family


@pytest.mark.parametrize("name", ["resnet180", "mobilnetv2", "", "wideresnet34-10"])
def test_an_unknown_name_suggests_near_misses(name):
    with pytest.raises(UnknownNameError) as caught:
        build_classifier(ModelSpec(name, 10))
    assert "wideresnet" in caught.value.hint or "mobilenetv2" in caught.value.hint or "resnet18" in caught.value.hint


def test_one_class_is_none():
    with pytest.raises(UsageError, match="2 classes"):
        build_classifier(ModelSpec("resnet18", 1))


def test_count_parameters_counts_no_buffers():
    assert count_parameters(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))) == 3 * 4 * 9 + 4 + 4 + 4


def test_a_class_mismatch_names_both_sides():
    check_classes(SMALL, 10, "cifar10")
    with pytest.raises(ClassMismatchError, match=r"resnet18-0.125 has 10 .* cifar100 has 100"):
        check_classes(SMALL, 100, "cifar100")
