from __future__ import annotations

import sys

import pytest
import torch

from compressor.checkpoint import load_checkpoint, save_checkpoint
from compressor.core.errors import MissingPackageError, UnknownNameError, UsageError
from compressor.core.types import ModelSpec
from compressor.models.classifier import build_classifier, build_empty_network


def test_without_timm_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingPackageError, match="timm:resnet18 needs timm") as caught:
        build_empty_network(ModelSpec("timm:resnet18", 10))
    assert "robust-compress[timm]" in caught.value.hint
    assert caught.value.exit_code == 2


def test_it_is_the_library_s_own_network():
    timm = pytest.importorskip("timm")
    built = build_classifier(ModelSpec("timm:mobilenetv3_small_050", 7), seed=0)
    theirs = timm.create_model("mobilenetv3_small_050", pretrained=False, num_classes=7)
    theirs.load_state_dict(built.network.state_dict())
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(built.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_b0"])
def test_the_small_stem_keeps_four_times_or_twice_the_side(name):
    pytest.importorskip("timm")
    sides = []
    for end in ("", "+small"):
        network = build_empty_network(ModelSpec(f"timm:{name}{end}", 10, 64)).eval()
        sides.append(network.forward_features(torch.zeros(1, 3, 64, 64, device="meta")).shape[-1])
    assert sides[1] == sides[0] * (4 if name == "resnet18" else 2)


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("timm:resnet19", UnknownNameError, "no model 'resnet19'"),
        ("timm:hf-hub:someone/weights", UnknownNameError, "timm has no model"),
        ("timm:resnet18.a1_in1k", UnknownNameError, "timm has no model"),
        ("timm:vit_tiny_patch16_224", UsageError, "cannot take images of 32 x 32"),
    ],
)
def test_what_cannot_be_built_is_a_sentence_and_nothing_is_fetched(name, error, says):
    pytest.importorskip("timm")
    with pytest.raises(error, match=says):
        build_empty_network(ModelSpec(name, 10))


@pytest.mark.slow
def test_buffers_that_no_state_dict_holds_are_made_anew(tmp_path):
    timm = pytest.importorskip("timm")
    # A windowed transformer keeps which pixels look at which in buffers beside its state dict.
    theirs = timm.create_model("swin_tiny_patch4_window7_224", pretrained=False, num_classes=3).eval()
    assert {name for name, _ in theirs.named_buffers()} - set(theirs.state_dict())
    spec = ModelSpec("timm:swin_tiny_patch4_window7_224", 3, 224)
    classifier = build_classifier(spec, seed=0).eval()
    save_checkpoint(tmp_path / "a.safetensors", classifier, {})
    loaded = load_checkpoint(tmp_path / "a.safetensors").classifier
    x = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded(x), classifier(x))
