"""Every random number of the project comes from a generator that is named by what it is for."""

from __future__ import annotations

import hashlib

import torch


def derive_seed(*key: int | str) -> int:
    """A 63-bit seed that is a function of ``key`` alone: equal keys give equal seeds, on every machine."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def make_generator(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator seeded by ``key``, such as ``(seed, "noise", epoch, step)``."""
    return torch.Generator(device=device).manual_seed(derive_seed(*key))
