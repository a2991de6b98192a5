from __future__ import annotations

import pytest
import torch

from compressor.checkpoint import load_checkpoint, named_normalization, normalization_name
from compressor.core.errors import UnknownArchitectureError, UnknownNameError
from compressor.core.types import Normalization
from compressor.system.files import sha256_file

CIFAR10, HALF = named_normalization("cifar10"), named_normalization("half")


@pytest.fixture
def teacher(tmp_path, state_of):
    def save(name="wideresnet-10-1", classes=10, **outer):
        torch.save({"state_dict": state_of(name, classes), **outer}, tmp_path / "teacher.pt")
        return tmp_path / "teacher.pt"

    return save


def test_a_trades_style_file_leaves_its_normalisation_open_raw_first(teacher):
    loaded = load_checkpoint(teacher())
    assert [spec.normalization for spec in loaded.open_questions] == [None, CIFAR10, HALF]
    assert loaded.spec == loaded.open_questions[0] == loaded.classifier.spec
    assert loaded.metadata == {}
    assert "wideresnet-10-1" in loaded.notes[0]
    assert loaded.sha256 == sha256_file(teacher())


def test_a_deepmind_file_also_leaves_its_activation_open_its_release_s_form_first(teacher):
    loaded = load_checkpoint(teacher("dm-wideresnet-10-1"))
    assert (loaded.spec.activation, loaded.spec.normalization) == ("silu", CIFAR10)
    assert len(loaded.open_questions) == len(set(loaded.open_questions)) == 6


def test_a_hundred_classes_mean_cifar100_s_statistics(teacher):
    loaded = load_checkpoint(teacher(classes=100))
    assert named_normalization("cifar100") in [spec.normalization for spec in loaded.open_questions]
    assert CIFAR10 not in [spec.normalization for spec in loaded.open_questions]


@pytest.mark.parametrize("given", ["none", "cifar10", "half", Normalization((0.0,) * 3, (0.7,) * 3)])
def test_a_given_normalisation_settles_the_question(teacher, given):
    loaded = load_checkpoint(teacher(), normalization=given)
    assert loaded.open_questions == ()
    assert loaded.spec.normalization == (named_normalization(given) if isinstance(given, str) else given)


def test_a_given_activation_settles_its_half(teacher):
    loaded = load_checkpoint(teacher("dm-wideresnet-10-1"), activation="relu")
    assert {spec.activation for spec in loaded.open_questions} == {"relu"}
    assert len(loaded.open_questions) == 3


def test_a_normalisation_in_the_file_settles_the_question(teacher):
    loaded = load_checkpoint(teacher(mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5]))
    assert loaded.open_questions == ()
    assert loaded.spec.normalization == HALF


def test_a_model_that_it_is_not_is_refused(teacher):
    with pytest.raises(UnknownArchitectureError, match=r"holds wideresnet-10-1, not wideresnet-16-1"):
        load_checkpoint(teacher(), model="wideresnet-16-1")
    assert load_checkpoint(teacher(), model="wideresnet-10-1").spec.name == "wideresnet-10-1"


def test_a_file_that_contradicts_itself_about_its_classes_is_refused(teacher):
    with pytest.raises(UnknownArchitectureError, match=r"says it has 100 classes, and its last layer has 10"):
        load_checkpoint(teacher(n_classes=100))


def test_an_unknown_normalisation_suggests_the_known(teacher):
    with pytest.raises(UnknownNameError) as caught:
        load_checkpoint(teacher(), normalization="cifar")
    assert "cifar10" in caught.value.hint


def test_the_image_size_is_32_unless_given(teacher):
    assert load_checkpoint(teacher()).spec.image_size == 32
    assert {spec.image_size for spec in load_checkpoint(teacher(), image_size=64).open_questions} == {64}


def test_names_and_normalisations_are_inverse():
    for name in ("none", "cifar10", "cifar100", "half"):
        assert normalization_name(named_normalization(name)) == name
    assert "0.25" in normalization_name(Normalization((0.25,) * 3, (1.0,) * 3))
