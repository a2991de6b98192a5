"""Reading sizes out of a state dict that may be of any network, or of none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor


def rows(state: Mapping[str, Tensor], key: str, dimensions: int) -> int:
    """The size of the first axis of ``state[key]``: the output channels of a layer.

    Returns:
        0 where the key is absent or its tensor has not ``dimensions`` axes.
    """
    tensor = state.get(key)
    return tensor.shape[0] if tensor is not None and tensor.dim() == dimensions else 0


def block_count(keys: Iterable[str], prefix: str) -> int:
    """How many different numbers follow ``prefix``: with ``layer1.`` the blocks of ``layer1.0.conv1.weight``, ..."""
    heads = {key[len(prefix) :].partition(".")[0] for key in keys if key.startswith(prefix)}
    return sum(head.isascii() and head.isdigit() for head in heads)
