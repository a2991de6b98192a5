"""Every random number of the project comes from a generator that is named by what it is for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(*key: int | str) -> int:
    """A 63-bit seed that is a function of ``key`` alone: equal keys give equal seeds, on every machine."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def make_generator(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator seeded by ``key``, such as ``(seed, "noise", epoch, step)``."""
    return torch.Generator(device=device).manual_seed(derive_seed(*key))


@contextmanager
def drawing_from(*key: int | str, device: torch.device) -> Iterator[None]:
    """Let what draws from torch's global generators (dropout, stochastic depth) draw numbers that ``key`` fixes.

    Args:
        key: what the numbers are for.
        device: where they are drawn, beside the CPU. All generators are afterwards as they were.
    """
    devices = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices=devices, device_type="cuda" if device.type == "cpu" else device.type):
        if device.type == "cpu":  # `torch.manual_seed` would also move the devices' generators, which are not kept
            torch.default_generator.manual_seed(derive_seed(*key))
        else:
            torch.manual_seed(derive_seed(*key))
        yield
