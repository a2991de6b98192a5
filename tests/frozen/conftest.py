"""What the frozen twin's tests share: models whose BatchNorm is far from the identity, and their float64 oracle."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tests.support.threads import one_thread  # noqa: F401 - a fixture of every test here

Answer = tuple[Tensor, Tensor]


@pytest.fixture
def settled() -> Callable[..., nn.Module]:
    """Gives every BatchNorm statistics and affine values as after training: a fresh one hides a wrong fold."""

    def settle(model: nn.Module, seed: int = 0) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        for module in model.modules():
            if isinstance(module, _BatchNorm) and module.running_mean is not None:
                assert module.running_var is not None
                module.running_mean.copy_(0.3 * torch.randn(module.running_mean.shape, generator=generator))
                module.running_var.copy_(0.5 + torch.rand(module.running_var.shape, generator=generator))
                if module.affine:
                    module.bias.data.copy_(0.3 * torch.randn(module.bias.shape, generator=generator))
                    module.weight.data.copy_(0.5 + torch.rand(module.weight.shape, generator=generator))
        return model

    return settle


@pytest.fixture
def pictures() -> Callable[..., Tensor]:
    """Random images ``[n, channels, size, size]`` in [0, 1]."""

    def draw(n: int = 3, size: int = 32, channels: int = 3, seed: int = 1) -> Tensor:
        return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(seed))

    return draw


@pytest.fixture
def answer() -> Callable[[nn.Module, Tensor], Answer]:
    """Logits, and the gradient of a fixed weighting of them with respect to the images."""

    def ask(model: nn.Module, x: Tensor) -> Answer:
        images = x.clone().requires_grad_()
        logits = model(images)
        weighting = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2)).to(logits.dtype)
        (gradient,) = torch.autograd.grad((logits * weighting).sum(), images)
        return logits.detach(), gradient

    return ask


@pytest.fixture
def exact(answer: Callable[[nn.Module, Tensor], Answer]) -> Callable[[nn.Module, Tensor], Answer]:
    """The oracle: the model itself in eval mode and float64, with no folding anywhere."""

    def ask(model: nn.Module, x: Tensor) -> Answer:
        return answer(copy.deepcopy(model).double().eval(), x.double())

    return ask


@pytest.fixture
def off() -> Callable[[Tensor, Tensor], float]:
    """The largest difference from what is expected, as a part of the largest expected value."""

    def measure(found: Tensor, expected: Tensor) -> float:
        assert found.shape == expected.shape
        assert expected.abs().max() > 0
        return float((found.double() - expected).abs().max() / expected.abs().max())

    return measure
