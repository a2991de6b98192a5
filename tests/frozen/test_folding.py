"""Which BatchNorm folds and which stays; either way the values are the model's, before and after it moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compressor.core.types import ModelSpec
from compressor.frozen import FrozenTwin
from compressor.frozen.folding import fold
from compressor.models.classifier import build_classifier

Settle = Callable[..., nn.Module]


def norms(module: nn.Module) -> int:
    return sum(isinstance(part, _BatchNorm) for part in module.modules())


@pytest.mark.parametrize(
    ("name", "left"),
    [
        # Every BatchNorm follows a convolution.
        ("resnet18-0.25", 0),
        ("mobilenetv2-0.25", 0),
        # Pre-activation: of the two in each of 3 (or 8) blocks the second follows a convolution; the last follows none.
        ("wideresnet-10-1", 4),
        ("dm-wideresnet-10-1", 4),
        ("dm-resnet18-0.25", 9),
    ],
)
def test_batch_norm_after_a_convolution_is_gone(name: str, left: int) -> None:
    model = build_classifier(ModelSpec(name, 10), seed=0)
    graph = fold(model, torch.float32).graph
    assert norms(model) > left
    assert norms(graph) == left


class Head(nn.Module):
    """Channels averaged over a picture, and two logits: what makes a classifier of any body with 4 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.mean((2, 3)))


class Shared(nn.Module):
    """One convolution called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(F.relu(self.conv(self.first(x)))))


class SharedNorm(nn.Module):
    """One BatchNorm after two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.b(F.leaky_relu(self.norm(self.a(x)))))


class Twice(nn.Module):
    """A convolution whose value is used with and without BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        z = self.conv(x)
        return F.relu(self.norm(z)) + z


class Residual(nn.Module):
    """ReLUs that may overwrite, and some that may not: their inputs are read once more."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv, self.relu = nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        z = self.norm(self.stem(x))
        a = torch.relu(z)
        b = self.relu(self.conv(a) + a)
        return F.relu(b + z) + b


class Swish(nn.Module):
    """A ReLU of a sigmoid's product: the product's factors are needed on the way back."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        z = self.norm(self.conv(x))
        return torch.relu(torch.sigmoid(z) * z - 0.1)


def plain(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers)


_BODIES: list[Any] = [
    pytest.param(lambda: plain(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), 0, id="after a convolution"),
    pytest.param(lambda: plain(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)), 0, id="no bias"),
    pytest.param(lambda: plain(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)), 0, id="no affine"),
    pytest.param(lambda: plain(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=0.5)), 0, id="large eps"),
    pytest.param(lambda: plain(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)), 1, id="two in a row"),
    pytest.param(lambda: plain(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)), 1, id="before a convolution"),
    pytest.param(lambda: plain(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)), 1, id="after a ReLU"),
    pytest.param(
        lambda: plain(nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), nn.BatchNorm2d(4)), 1, id="circular"
    ),
    pytest.param(lambda: plain(nn.ConvTranspose2d(3, 4, 3, stride=2), nn.BatchNorm2d(4)), 1, id="transposed"),
    pytest.param(lambda: plain(nn.Conv2d(3, 4, 3), nn.Dropout(0.5), nn.BatchNorm2d(4)), 1, id="dropout"),
    pytest.param(lambda: plain(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.PReLU(4), nn.ReLU()), 0, id="other norms"),
    pytest.param(Shared, 1, id="shared convolution"),
    pytest.param(SharedNorm, 1, id="shared norm"),
    pytest.param(Twice, 1, id="value used twice"),
    pytest.param(Residual, 0, id="residual"),
    pytest.param(Swish, 0, id="swish"),
]


@pytest.mark.parametrize(("body", "left"), _BODIES)
def test_hand_made_networks(
    body: Callable[[], nn.Module], left: int, settled: Settle, pictures: Any, answer: Any, exact: Any, off: Any
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(body(), Head())
    x = pictures(size=9)
    twin = FrozenTwin(model, x[:1])
    assert twin.folded
    assert norms(twin) == left
    for seed in (0, 1):
        settled(model, seed)
        twin.refresh()
        for found, expected in zip(answer(twin, x), exact(model, x), strict=True):
            assert off(found, expected) < 1e-5


@pytest.mark.parametrize(("body", "left"), _BODIES)
def test_hand_made_networks_in_bfloat16(
    body: Callable[[], nn.Module], left: int, settled: Settle, pictures: Any, answer: Any, exact: Any, off: Any
) -> None:
    torch.manual_seed(0)
    model = settled(nn.Sequential(body(), Head()))
    x = pictures(size=9)
    twin = FrozenTwin(model, x[:1], "bf16")
    assert twin.folded
    assert twin.precision == "bf16"
    assert norms(twin) == left
    logits, gradient = answer(twin, x)
    assert logits.dtype == gradient.dtype == torch.float32
    expected, expected_gradient = exact(model, x)
    assert off(logits, expected) < 0.03
    agree = (gradient.sign() == expected_gradient.sign()).double().mean()
    assert agree > 0.9


def test_the_values_come_from_the_model_and_not_from_the_moment_of_folding(pictures: Any) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), Head()).eval()
    folded = fold(model, torch.float32)
    x = pictures()
    before = folded.graph(x)
    with torch.no_grad():
        for tensor in (*model.parameters(), model[1].running_mean, model[1].running_var):
            tensor.add_(0.5)
    torch.testing.assert_close(folded.graph(x), before, rtol=0, atol=0)
    folded.refresh()
    torch.testing.assert_close(folded.graph(x), model(x))
