"""A stem for small pictures, for networks that were made for large ones."""

from __future__ import annotations

import copy
from contextlib import suppress

import torch
from torch import nn

from compressor.core.errors import UsageError

_SIDE = 64
_WINDOWS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Linear)


def with_small_stem(network: nn.Module, name: str) -> nn.Module:
    """Give the first convolution stride 1 instead of 2, and drop a max-pool that follows it at once.

    At 224 pixels a stem reduces the picture fourfold, before anything is recognised; of 32 pixels that leaves 8. The
    kernel stays as it is, so the library's state dicts fit with either stem.

    Raises:
        UsageError: the first layer is no convolution of stride 2.
    """
    windows = _windows_in_order(network)
    stem = network.get_submodule(windows[0]) if windows else None
    if not isinstance(stem, nn.Conv2d) or stem.stride != (2, 2):
        what = f"a convolution of stride {stem.stride[0]}" if isinstance(stem, nn.Conv2d) else "no convolution"
        raise UsageError(
            f"{name} has no stem to make small: its first layer is {what}, not of stride 2.", "Leave +small out."
        )
    stem.stride = (1, 1)
    if len(windows) > 1 and isinstance(network.get_submodule(windows[1]), nn.MaxPool2d):
        network.set_submodule(windows[1], nn.Identity())
    return network


def _windows_in_order(network: nn.Module) -> list[str]:
    """Names of the layers that look at several values at once, in the order in which a forward calls them."""
    shape = copy.deepcopy(network).to("meta").eval()
    called: list[str] = []
    for name, layer in shape.named_modules():
        if isinstance(layer, _WINDOWS):
            layer.register_forward_pre_hook(lambda _layer, _inputs, name=name: called.append(name))
    # A network that takes pictures of other sizes raises, but only after its stem.
    with torch.device("meta"), torch.no_grad(), suppress(Exception):
        shape(torch.zeros(1, 3, _SIDE, _SIDE))
    return called
