"""What a launcher (``torchrun``, ``accelerate launch``) says in the environment: which process this is, of how many."""

from __future__ import annotations

import os


def rank() -> int:
    """This process's number among all; 0 where there was no launcher."""
    return _number("RANK", 0)


def world_size() -> int:
    """How many processes there are, on all machines."""
    return _number("WORLD_SIZE", 1)


def local_rank() -> int | None:
    """This process's number on its machine; None where there was no launcher."""
    number = _number("LOCAL_RANK", -1)
    return None if number < 0 else number


def local_world_size() -> int:
    """How many processes share this machine."""
    return max(1, _number("LOCAL_WORLD_SIZE", 1))


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default
