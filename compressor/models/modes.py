"""Train and eval mode, set for a moment and put back exactly as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def module_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Put ``model`` into train or eval mode inside the block; every submodule gets its own flag back."""
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, flag in before:
            module.training = flag
