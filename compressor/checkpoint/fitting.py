"""Putting a state dict into the network it claims to be: every name and every shape must agree."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from compressor.core.errors import UnknownArchitectureError
from compressor.core.types import ModelSpec
from compressor.models.classifier import build_classifier, build_empty_network

_COUNTER = "num_batches_tracked"


def fill_network(spec: ModelSpec, state: Mapping[str, Tensor]) -> nn.Module:
    """The spec's network, holding the tensors of ``state`` itself, in evaluation mode.

    A missing ``num_batches_tracked`` (old PyTorch, converted files) counts as 0; nothing else may be missing or extra.

    Raises:
        UnknownArchitectureError: a tensor is missing, extra or of another shape.
        UnknownNameError, UsageError: the spec names no network.
    """
    network = build_empty_network(spec)
    expected = network.state_dict()
    counters = {key: torch.zeros((), dtype=torch.int64) for key in expected if key.endswith(_COUNTER)}
    complete = counters | dict(state)
    _check(spec.name, expected, complete)
    if _keeps_more_than_its_state(network, expected):
        # What no state dict holds has no values on the meta device: it is made along with weights that are replaced.
        network = build_classifier(spec, seed=0).network
    network.load_state_dict(complete, strict=True, assign=True)
    return network.eval()


def _keeps_more_than_its_state(network: nn.Module, state: Mapping[str, Tensor]) -> bool:
    return any(name not in state and buffer.is_meta for name, buffer in network.named_buffers())


def _check(name: str, expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    missing = [key for key in expected if key not in state]
    extra = [key for key in state if key not in expected]
    reason = ""
    if missing:
        reason = f"it lacks {_first(missing)}"
    elif extra:
        reason = f"it also holds {_first(extra)}"
    else:
        for key, tensor in expected.items():
            if state[key].shape != tensor.shape:
                reason = f"{key} is {list(state[key].shape)} and should be {list(tensor.shape)}"
                break
    if reason:
        raise UnknownArchitectureError(
            f"the checkpoint does not fit {name}: {reason}.",
            "It is a changed variant of that family: only the form of the public ports can be loaded.",
        )


def _first(keys: list[str]) -> str:
    return keys[0] if len(keys) == 1 else f"{keys[0]} and {len(keys) - 1} more"
