from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from compressor.core.types import ModelSpec
from compressor.models.classifier import build_classifier


@pytest.fixture
def network() -> Callable[..., nn.Module]:
    """Builds a member's network in eval mode, its BatchNorm statistics far from the identity."""

    def build(name: str, classes: int = 10, activation: str = "relu", seed: int = 0) -> nn.Module:
        built = build_classifier(ModelSpec(name, classes, activation=activation), seed=seed).network
        generator = torch.Generator().manual_seed(seed)
        for module in built.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.running_mean, module.bias.data):
                    tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
                for tensor in (module.running_var, module.weight.data):
                    tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
        return built.eval()

    return build
