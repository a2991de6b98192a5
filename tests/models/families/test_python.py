from __future__ import annotations

import json
import sys

import pytest
import torch

from cli.main import main
from compressor.checkpoint import load_checkpoint, save_checkpoint
from compressor.core.errors import (
    UnknownArchitectureError,
    UnreadableCheckpointError,
    UnsafeCheckpointError,
    UsageError,
)
from compressor.core.types import ModelSpec
from compressor.models import user_code as own_code
from compressor.models.classifier import build_classifier, build_empty_network

SOURCE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes, side):
        super().__init__()
        self.scale = torch.full((1,), float(side))  # no buffer: it must not be made on the meta device
        self.head = nn.Linear(3, classes)

    def forward(self, x):
        return self.head(x.mean((2, 3))) * self.scale

def net(num_classes):
    return Net(num_classes, 1)

def sized(num_classes, image_size):
    return Net(num_classes, image_size)

class Wrapped(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.model = nn.Linear(3, classes)

    def forward(self, x):
        return self.model(x.mean((2, 3)))

def wrapped(num_classes):
    return Wrapped(num_classes)

class Shifted(Wrapped):
    def __init__(self, classes):
        super().__init__(classes)
        self.register_buffer("mean", torch.full((3,), 0.5))
        self.register_buffer("order", torch.tensor([2, 0, 1]))

    def forward(self, x):
        return super().forward((x - self.mean.reshape(1, 3, 1, 1))[:, self.order])

def shifted(num_classes):
    return Shifted(num_classes)

def keywords(**settings):
    return Net(settings["num_classes"], len(settings))

def number(num_classes):
    return 7

def failing(num_classes):
    raise RuntimeError("no weights here")

class Pair(Net):
    def forward(self, x):
        return (super().forward(x),) * 2 if self.training else super().forward(x)

def pair(num_classes):
    return Pair(num_classes, 1)

def transposed(num_classes):
    return nn.Sequential(nn.Flatten(2), nn.Linear(1024, num_classes))
"""


@pytest.fixture(autouse=True)
def source(tmp_path, monkeypatch):
    """The module ``mynets`` in the working folder, imported anew in each test, and no consent yet."""
    monkeypatch.setattr(own_code, "_allowed", set())
    monkeypatch.setattr(own_code, "_digests", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mynets.py"
    path.write_text(SOURCE, encoding="utf-8")
    yield path
    sys.modules.pop("mynets", None)


def spec(factory: str, *, allowed: bool = True) -> ModelSpec:
    name = f"python:mynets:{factory}"
    if allowed:
        own_code.allow_user_code(name)
    return ModelSpec(name, 4)


def another_process() -> None:
    """What was imported and allowed is gone."""
    own_code._allowed.clear()
    own_code._digests.clear()
    sys.modules.pop("mynets", None)


@pytest.mark.parametrize(("factory", "scale"), [("net", 1), ("sized", 32), ("keywords", 1)])
def test_the_factory_gets_the_classes_and_the_size_where_it_takes_it(factory, scale):
    classifier = build_classifier(spec(factory), seed=0)
    assert float(classifier.network.scale) == scale
    assert classifier(torch.zeros(2, 3, 32, 32)).shape == (2, 4)


def test_shapes_are_had_without_moving_the_global_generator():
    before = torch.get_rng_state()
    assert build_empty_network(spec("net")).head.weight.shape == (4, 3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        ("number", "gave a int"),
        ("failing", "no weights here"),
        ("pair", "gives a tuple"),
        ("transposed", r"\[2, 3, 4\] for 2 images"),
    ],
)
def test_what_is_no_classifier_is_refused_before_it_trains(factory, says):
    with pytest.raises(UsageError, match=says):
        build_empty_network(spec(factory))


def test_a_checkpoint_records_the_source_and_loads_only_with_consent(tmp_path, source):
    classifier = build_classifier(spec("net"), seed=0).eval()
    save_checkpoint(tmp_path / "a.safetensors", classifier, {})
    digest = classifier.spec.source_sha256

    another_process()
    with pytest.raises(UnsafeCheckpointError, match="python:mynets:net"):
        load_checkpoint(tmp_path / "a.safetensors")
    with pytest.raises(UnsafeCheckpointError):
        load_checkpoint(tmp_path / "a.safetensors", model="python:mynets:net")
    assert "mynets" not in sys.modules

    own_code.allow_user_code("python:mynets:net")
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert loaded.spec.source_sha256 == digest
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(loaded.classifier(x), classifier(x))

    another_process()
    own_code.allow_user_code("python:mynets:net")
    source.write_text(SOURCE + "\n# changed\n", encoding="utf-8")
    with pytest.raises(UnknownArchitectureError, match=str(digest)) as caught:
        load_checkpoint(tmp_path / "a.safetensors")
    assert own_code.load_user_code("python:mynets:net").sha256 in caught.value.message


def test_a_header_that_hides_its_source_is_damaged(tmp_path, monkeypatch):
    classifier = build_classifier(spec("net"), seed=0)
    for digest in (None, "f" * 63, "F" * 64):
        monkeypatch.setattr(classifier, "spec", ModelSpec("python:mynets:net", 4, source_sha256=digest))
        save_checkpoint(tmp_path / "a.safetensors", classifier, {})
        with pytest.raises(UnreadableCheckpointError, match="source digest"):
            load_checkpoint(tmp_path / "a.safetensors")


def test_a_plain_state_dict_loads_under_the_name_that_the_user_gives(tmp_path):
    classifier = build_classifier(spec("net"), seed=0)
    torch.save(classifier.network.state_dict(), tmp_path / "a.pt")
    loaded = load_checkpoint(tmp_path / "a.pt", model="python:mynets:net", normalization="none")
    assert loaded.spec == classifier.spec
    with pytest.raises(UnsafeCheckpointError):
        load_checkpoint(tmp_path / "a.pt", model="python:mynets:sized")


@pytest.mark.parametrize("factory", ["wrapped", "shifted"])
def test_names_that_look_like_a_wrapper_s_are_the_network_s_own(tmp_path, factory):
    classifier = build_classifier(spec(factory), seed=0).eval()
    save_checkpoint(tmp_path / "a.safetensors", classifier, {})
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(loaded.classifier(x), classifier(x))
    if factory == "wrapped":
        torch.save({f"module.{k}": v for k, v in classifier.network.state_dict().items()}, tmp_path / "a.pt")
        again = load_checkpoint(tmp_path / "a.pt", model="python:mynets:wrapped", normalization="none")
        assert torch.equal(again.classifier(x), classifier(x))


def test_inspect_shows_the_name_without_running_it(tmp_path, capsys):
    classifier = build_classifier(spec("net"), seed=0)
    save_checkpoint(tmp_path / "a.safetensors", classifier, {})
    another_process()
    assert main(["inspect", str(tmp_path / "a.safetensors"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["model"] == "python:mynets:net"
    assert shown["family"] == "python"
    assert shown["source_sha256"] == classifier.spec.source_sha256
    assert shown["parameters"] is None
    assert "mynets" not in sys.modules


@pytest.mark.parametrize("command", ["attack", "export"])
def test_commands_on_such_a_checkpoint_ask_for_the_name_again(tmp_path, capsys, command):
    save_checkpoint(tmp_path / "a.safetensors", build_classifier(spec("net"), seed=0), {})
    another_process()
    assert main([command, str(tmp_path / "a.safetensors"), "--data", "digits", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "unsafe-checkpoint"
    assert "--model python:mynets:net" in error["hint"]
    assert "mynets" not in sys.modules
    # With the name it gets as far as the data, which has other classes.
    words = [command, str(tmp_path / "a.safetensors"), "--data", "digits", "--model", "python:mynets:net", "--json"]
    assert main(words) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "class-mismatch"


def test_a_recipe_file_alone_is_no_consent(tmp_path, capsys):
    (tmp_path / "a.toml").write_text('model = "python:mynets:net"\n', encoding="utf-8")
    assert main(["train", "--recipe", str(tmp_path / "a.toml"), "--data", "digits", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "unsafe-checkpoint"
    assert "mynets" not in sys.modules
