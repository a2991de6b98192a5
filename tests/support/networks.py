"""Small networks, and what oracles of published networks share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.core.types import ModelSpec
from compressor.models.classifier import build_classifier


def batch_norm_keys(name: str) -> set[str]:
    """The names of a BatchNorm's tensors in a state dict."""
    return {f"{name}.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}


def block_keys(prefix: str, convolutions: Sequence[str], norms: Sequence[str]) -> set[str]:
    """The names of the tensors of a block: convolutions without bias, and BatchNorms."""
    return {f"{prefix}.{name}.weight" for name in convolutions}.union(
        *(batch_norm_keys(f"{prefix}.{name}") for name in norms)
    )


def batch_norm_of(state: Mapping[str, Tensor]) -> Callable[[Tensor, str], Tensor]:
    """A function of a tensor and a name: the BatchNorm of that name in eval mode, from a state dict."""

    def normalise(x: Tensor, name: str) -> Tensor:
        stats = (state[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *stats)

    return normalise


def opened(network: nn.Module) -> tuple[Mapping[str, Tensor], Callable[[Tensor, str], Tensor], Tensor]:
    """What an oracle computes with: a network's tensors by name, its BatchNorms in eval mode, and three images."""
    state = network.state_dict()
    return state, batch_norm_of(state), torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def network_without_favourite(classes: int) -> nn.Module:
    """A small convolutional network with fresh weights, BatchNorm that has seen images, and no favourite class."""
    built = build_classifier(ModelSpec("dm-wideresnet-10-1", classes, image_size=16), seed=0).train()
    x = torch.rand(32, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for _ in range(20):
            built(x)
        last = [module for module in built.eval().modules() if isinstance(module, nn.Linear)][-1]
        last.bias -= built(x).mean(0)
    return built


class Steps(nn.Module):
    """A model that sees every pixel in a few levels: its gradient is zero wherever it has one."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model((x * 4).round() / 4)
        return logits


class Brightness(nn.Module):
    """Right on images in [-1, 1], where 0 is the middle, and wrong on many in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        lead = x.mean((1, 2, 3)) - self.threshold
        return torch.stack([-lead, lead, -lead - 1], dim=1)


def small_network(activation: nn.Module, classes: int) -> nn.Module:
    """Two convolutions and a linear layer for images ``[B, 3, 8, 8]``; the activation follows the first."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        activation,
        nn.Conv2d(8, 8, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(72, classes),
    )
