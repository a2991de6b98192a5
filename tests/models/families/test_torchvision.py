from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision import models

from compressor.checkpoint import load_checkpoint, save_checkpoint
from compressor.core.errors import UnknownArchitectureError, UnknownNameError, UsageError
from compressor.core.types import ModelSpec
from compressor.models.classifier import build_classifier, build_empty_network

SMALL_STEMS = {
    # The side of what the stem hands on, of 32 pixels: with the library's stem, and with the small one.
    "resnet18": ("maxpool", "layer1", 8, 32),
    "squeezenet1_1": ("features.2", "features.3", 7, 30),
    "densenet121": ("features.pool0", "features.denseblock1", 8, 32),
    "mobilenet_v3_small": (None, "features.1", 16, 32),
    "shufflenet_v2_x0_5": ("maxpool", "stage2", 8, 32),
}


def side_before(name: str, layer: str) -> int:
    network = build_empty_network(ModelSpec(name, 10)).eval()
    sides = []
    network.get_submodule(layer).register_forward_pre_hook(
        lambda _layer, given: sides.append((given[0][0] if isinstance(given[0], list) else given[0]).shape[-1])
    )
    network(torch.zeros(1, 3, 32, 32, device="meta"))
    return sides[0]


@pytest.mark.parametrize("name", SMALL_STEMS)
def test_the_small_stem_keeps_pictures_large_and_changes_no_tensor(name):
    pool, layer, large, small = SMALL_STEMS[name]
    assert side_before(f"torchvision:{name}", layer) == large
    assert side_before(f"torchvision:{name}+small", layer) == small
    plain, shrunk = (build_empty_network(ModelSpec(f"torchvision:{name}{end}", 10)) for end in ("", "+small"))
    shapes, small_shapes = ({key: t.shape for key, t in one.state_dict().items()} for one in (plain, shrunk))
    assert shapes == small_shapes
    assert pool is None or isinstance(shrunk.get_submodule(pool), nn.Identity)


def test_it_is_the_library_s_own_network_with_random_weights():
    built = build_classifier(ModelSpec("torchvision:mnasnet0_5", 7), seed=0)
    theirs = models.mnasnet0_5(weights=None, num_classes=7)
    theirs.load_state_dict(built.network.state_dict())
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(built.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize(
    ("name", "error", "says", "hint"),
    [
        ("torchvision:mobilenet_v3", UnknownNameError, "no model 'mobilenet_v3'", "mobilenet_v3_small"),
        ("torchvision:zzz", UnknownNameError, "no model 'zzz'", "list_models"),
        ("torchvision:quantized_resnet18", UnknownNameError, "quantized", "resnet18"),
        ("torchvision:resnet18+tiny", UnknownNameError, "tiny", "resnet18"),
        ("torchvision", UsageError, "names no network", "torchvision:NAME"),
        ("torchvision:", UsageError, "names no network", "torchvision:NAME"),
        ("torchvision-resnet18", UsageError, "names no network", "torchvision:NAME"),
        ("torchvison:resnet18", UnknownNameError, "torchvison", "torchvision"),
        ("torchvision:vgg11+small", UsageError, "stride 1, not of stride 2", "Leave"),
        ("torchvision:convnext_tiny+small", UsageError, "stride 4", "Leave"),
        ("torchvision:inception_v3", UsageError, "cannot take images of 32 x 32", "--image-size"),
        ("torchvision:vit_b_16", UsageError, "Expected 224 but got 32", "--image-size"),
    ],
)
def test_what_cannot_be_built_is_a_sentence(name, error, says, hint):
    with pytest.raises(error, match=says) as caught:
        build_empty_network(ModelSpec(name, 10))
    assert hint in caught.value.hint


def test_no_network_gives_auxiliary_logits_in_training():
    for name, size in (("googlenet+small", 32), ("inception_v3", 96)):
        network = build_empty_network(ModelSpec(f"torchvision:{name}", 10, size)).train()
        assert network(torch.zeros(2, 3, size, size, device="meta")).shape == (2, 10)


def test_the_activation_is_the_network_s_own():
    with pytest.raises(UsageError, match="no silu form"):
        build_classifier(ModelSpec("torchvision:resnet18", 10, activation="silu"))


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", pytest.param("swin_t", marks=pytest.mark.slow)])
def test_a_plain_state_dict_loads_under_the_name_that_the_user_gives(tmp_path, name):
    size = 64
    theirs = models.get_model(name, weights=None, num_classes=7).eval()
    torch.save({"state_dict": {f"module.{k}": v for k, v in theirs.state_dict().items()}}, tmp_path / "a.pt")
    loaded = load_checkpoint(tmp_path / "a.pt", model=f"torchvision:{name}", normalization="none", image_size=size)
    assert (loaded.spec.name, loaded.spec.classes, loaded.open_questions) == (f"torchvision:{name}", 7, ())
    x = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded.classifier(x), theirs(x))


def test_a_state_dict_of_another_network_is_refused(tmp_path):
    torch.save(models.resnet18(num_classes=7).state_dict(), tmp_path / "a.pt")
    for name, says in (("resnet34", "it lacks"), ("resnet50", "it lacks"), ("squeezenet1_1", "lacks the last layer")):
        with pytest.raises(UnknownArchitectureError, match=says):
            load_checkpoint(tmp_path / "a.pt", model=f"torchvision:{name}")
    with pytest.raises(UnknownArchitectureError, match="torchvision ResNet") as caught:
        load_checkpoint(tmp_path / "a.pt")
    assert "--model" in caught.value.hint


def test_our_own_checkpoint_needs_no_name(tmp_path):
    spec = ModelSpec("torchvision:mobilenet_v3_small+small", 5)
    classifier = build_classifier(spec, seed=1).eval()
    save_checkpoint(tmp_path / "a.safetensors", classifier, {})
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert loaded.spec == spec
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded.classifier(x), classifier(x))
