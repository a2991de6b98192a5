from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compressor.checkpoint.unwrapping import OUTER_KEYS, PREFIXES, split_normalizer, strip_prefixes, unwrap
from compressor.core.errors import UnreadableCheckpointError
from compressor.core.types import Normalization

FILE = Path("teacher.pt")
WEIGHTS = {"conv1.weight": torch.ones(2), "bn1.running_mean": torch.zeros(2), "fc.weight": torch.ones(3)}


@given(st.lists(st.sampled_from(PREFIXES), max_size=6), st.lists(st.sampled_from(OUTER_KEYS), max_size=5))
def test_any_nesting_of_prefixes_and_outer_keys_comes_off(prefixes, outer_keys):
    document = {"".join(prefixes) + key: tensor for key, tensor in WEIGHTS.items()}
    for key in outer_keys:
        document = {"epoch": 3, key: document}
    assert unwrap(document, FILE).state == WEIGHTS


@given(st.sampled_from(PREFIXES))
def test_a_prefix_that_not_every_key_has_is_a_name(prefix):
    state = {f"{prefix}weight": torch.ones(1), "fc.weight": torch.ones(1)}
    assert strip_prefixes(state) == state


def test_layers_of_a_sequential_keep_their_numbers():
    state = {"0.weight": torch.ones(1), "1.weight": torch.ones(1)}
    assert strip_prefixes(state) == state


def test_outer_keys_are_tried_in_their_order():
    document = {"ema": {"a": torch.ones(1)}, "model_state_dict": {"b": torch.ones(1)}}
    found = unwrap(document, FILE)
    assert set(found.state) == {"b"}
    assert "'model_state_dict'" in found.notes[0]
    assert "'ema'" in found.notes[0]


def test_the_averaged_copy_is_taken_before_the_unaveraged_one():
    document = {"unaveraged_model_state_dict": {"w": torch.zeros(1)}, "model_state_dict": {"w": torch.ones(1)}}
    assert unwrap(document, FILE).state["w"].item() == 1


def test_n_averaged_goes_with_its_prefix():
    document = {"n_averaged": torch.tensor(7)} | {f"module.{key}": value for key, value in WEIGHTS.items()}
    assert unwrap(document, FILE).state == WEIGHTS


def test_rmodel_says_its_classes_and_normalisation():
    document = {"rmodel": WEIGHTS, "n_classes": 10, "mean": torch.tensor([0.1, 0.2, 0.3]), "std": [0.4, 0.5, 0.6]}
    found = unwrap(document, FILE)
    assert found.state == WEIGHTS
    assert found.classes == 10
    assert found.normalization == Normalization((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_madrylab_keeps_the_model_reads_the_normaliser_and_drops_the_attacker():
    mean, std = (
        torch.tensor([0.4914, 0.4822, 0.4465]).reshape(3, 1, 1),
        torch.tensor([0.25, 0.25, 0.25]).reshape(3, 1, 1),
    )
    document = {"model": {
        **{f"module.model.{key}": value for key, value in WEIGHTS.items()},
        **{f"module.attacker.model.{key}": value for key, value in WEIGHTS.items()},
        "module.normalizer.new_mean": mean, "module.normalizer.new_std": std,
        "module.attacker.normalize.new_mean": mean + 0.1, "module.attacker.normalize.new_std": std,
    }, "epoch": 90}  # fmt: skip
    found = unwrap(document, FILE)
    assert found.state == WEIGHTS
    assert found.normalization == Normalization((0.4914, 0.4822, 0.4465), (0.25, 0.25, 0.25))


@pytest.mark.parametrize(("normalizer", "network"), [("0.", "1."), ("normalize.", "model."), ("", "network.")])
def test_a_normaliser_beside_the_network_is_read(normalizer, network):
    document = {f"{network}{key}": value for key, value in WEIGHTS.items()}
    document |= {f"{normalizer}mean": torch.full((1, 3, 1, 1), 0.5), f"{normalizer}std": torch.full((1, 3, 1, 1), 0.25)}
    found = unwrap({f"module.{key}": value for key, value in document.items()}, FILE)
    assert found.state == WEIGHTS
    assert found.normalization == Normalization((0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize(("mean", "std"), [(125.3, 63.0), (0.5, 0.0), (float("nan"), 0.2)])
def test_numbers_that_are_no_normalisation_say_nothing(mean, std):
    buffers = {"mean": torch.full((3,), mean), "std": torch.full((3,), std)}
    normalization, rest = split_normalizer(WEIGHTS | buffers)
    assert normalization is None
    assert rest == WEIGHTS


def test_entries_that_are_no_tensors_are_left_out_and_mentioned():
    found = unwrap({**WEIGHTS, "epoch": 3, 5: "x"}, FILE)
    assert found.state == WEIGHTS
    assert "2 entries" in found.notes[0]


def endless():
    document: dict[str, object] = {}
    document["model"] = document
    return document


@pytest.mark.parametrize("document", [[], torch.ones(2), {}, {"epoch": 1}, {"model": {}}, "text", endless(), None])
def test_a_document_without_weights_is_refused_by_name(document):
    with pytest.raises(UnreadableCheckpointError, match=r"^teacher.pt holds"):
        unwrap(document, FILE)
