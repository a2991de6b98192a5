from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.checkpoint import fill_network
from compressor.core.contracts import ModelFamily
from compressor.core.errors import UnknownArchitectureError
from compressor.core.types import ModelSpec
from compressor.models import classifier

SPEC = ModelSpec("wideresnet-10-1", 10)


def test_the_network_holds_the_given_tensors_and_is_in_eval_mode(state_of):
    state = state_of()
    network = fill_network(SPEC, state)
    assert not network.training
    assert all(torch.equal(network.state_dict()[key], state[key]) for key in state)
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_missing_batch_counters_count_as_zero(state_of):
    state = {key: tensor for key, tensor in state_of().items() if not key.endswith("num_batches_tracked")}
    assert fill_network(SPEC, state).bn1.num_batches_tracked.item() == 0


def test_nothing_else_may_be_missing(state_of):
    state = state_of()
    del state["block2.layer.0.bn1.running_var"], state["fc.bias"]
    with pytest.raises(UnknownArchitectureError, match=r"lacks block2\.layer\.0\.bn1\.running_var and 1 more"):
        fill_network(SPEC, state)


def test_nothing_may_be_extra(state_of):
    with pytest.raises(UnknownArchitectureError, match=r"also holds block1\.extra\.weight\."):
        fill_network(SPEC, {**state_of(), "block1.extra.weight": torch.zeros(1)})


def test_shapes_must_agree(state_of):
    with pytest.raises(UnknownArchitectureError, match=r"fc\.bias is \[7\] and should be \[10\]"):
        fill_network(SPEC, {**state_of(), "fc.bias": torch.zeros(7)})


def test_buffers_that_no_state_dict_holds_have_their_values(monkeypatch):
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(2, 3)
            self.register_buffer("order", torch.tensor([1, 0]), persistent=False)

    family = ModelFamily("turned", "turned", lambda spec: Turned(), lambda state: None)
    monkeypatch.setattr(classifier, "family_of", lambda name: family)
    state = Turned().state_dict()
    before = torch.get_rng_state()
    network = fill_network(ModelSpec("turned", 3), state)
    assert torch.equal(network.order, torch.tensor([1, 0]))
    assert torch.equal(network.head.weight, state["head.weight"])
    assert torch.equal(torch.get_rng_state(), before)
