from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import Tensor

from compressor.core.types import ModelSpec
from compressor.models.classifier import build_classifier


@pytest.fixture
def state_of() -> Callable[..., dict[str, Tensor]]:
    """The state dict of a model with fresh weights, by the network's own names."""

    def build(name: str = "wideresnet-10-1", classes: int = 10) -> dict[str, Tensor]:
        return dict(build_classifier(ModelSpec(name, classes), seed=0).network.state_dict())

    return build
