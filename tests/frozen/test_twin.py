"""Oracle: the model itself in eval mode, in float64, by autograd alone."""

from __future__ import annotations

import copy
import importlib.util
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.core.registry import MODELS
from compressor.core.types import ModelSpec, Normalization
from compressor.frozen import FrozenTwin, chunk_of, folded_twin, in_chunks, surrogate_of
from compressor.models import user_code as own_code
from compressor.models.classifier import build_classifier

NORMALIZATION = Normalization((0.49, 0.48, 0.45), (0.25, 0.24, 0.26))

# Float32 keeps 24 bits; what is left over is the order of sums. A ReLU's kink may turn a gradient in bfloat16: there we
# ask of gradients what an attack uses, their signs.
_FP32 = 1e-5
_BF16 = 0.03
_SIGNS = 0.85


@pytest.fixture(params=MODELS.members())
def classifier(request: Any, settled: Callable[..., nn.Module]) -> nn.Module:
    """Each family's example behind a normalisation, in train mode, its BatchNorm as after training."""
    if request.param == "timm":
        pytest.importorskip("timm")
    own_code.allow_user_code(MODELS.get(request.param).example)
    spec = ModelSpec(MODELS.get(request.param).example, 10, normalization=NORMALIZATION)
    return settled(build_classifier(spec, seed=0))


def test_every_family_folds_and_answers_as_in_float64(
    classifier: nn.Module, pictures: Any, answer: Any, exact: Any, off: Any
) -> None:
    x = pictures()
    twin = FrozenTwin(classifier, x[:2])
    assert twin.folded
    assert twin.precision == "fp32"
    for found, expected in zip(answer(twin, x), exact(classifier, x), strict=True):
        assert off(found, expected) < _FP32


def test_every_family_is_close_in_bfloat16(
    classifier: nn.Module, pictures: Any, answer: Any, exact: Any, off: Any
) -> None:
    x = pictures()
    twin = FrozenTwin(classifier, x[:2], "bf16")
    assert twin.folded
    assert twin.precision == "bf16"
    logits, gradient = answer(twin, x)
    expected, expected_gradient = exact(classifier, x)
    assert logits.dtype == gradient.dtype == torch.float32
    assert 1e-4 < off(logits, expected) < _BF16  # not secretly computed in float32
    assert (gradient.sign() == expected_gradient.sign()).double().mean() > _SIGNS


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="needs torchvision")
@pytest.mark.parametrize(
    "name",
    [
        "mobilenet_v2",
        "mobilenet_v3_small",
        "resnet18",
        "shufflenet_v2_x0_5",
        "squeezenet1_1",
        "efficientnet_b0",
        "mnasnet0_5",
    ],
)
def test_networks_of_others(name: str, settled: Any, pictures: Any, answer: Any, exact: Any, off: Any) -> None:
    from torchvision import models

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = settled(getattr(models, name)(num_classes=10))
    x = pictures(2, 64)
    expected, expected_gradient = exact(model, x)
    single, half = FrozenTwin(model, x[:1]), FrozenTwin(model, x[:1], "bf16")
    assert single.folded
    assert half.folded
    logits, gradient = answer(single, x)
    assert off(logits, expected) < _FP32
    assert off(gradient, expected_gradient) < _FP32
    logits, gradient = answer(half, x)
    assert off(logits, expected) < _BF16
    assert (gradient.sign() == expected_gradient.sign()).double().mean() > _SIGNS


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_refresh_takes_over_a_training_step(precision: Any, pictures: Any, off: Any) -> None:
    model = build_classifier(ModelSpec("mobilenetv2-0.25", 10, normalization=NORMALIZATION), seed=0)
    x = pictures(8)
    twin = FrozenTwin(model, x[:2], precision)
    before = twin(x)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(model(x), torch.arange(8)).backward()
        optimizer.step()
    assert torch.equal(twin(x), before)
    twin.refresh()
    expected = copy.deepcopy(model).double().eval()(x.double()).detach()
    assert off(before, expected) > 0.3
    assert off(twin(x), expected) < (_FP32 if precision == "fp32" else _BF16)


@pytest.mark.parametrize("network", ["folded", "copied"])
def test_the_model_is_never_touched(network: str, pictures: Any) -> None:
    classifier = build_classifier(ModelSpec("resnet18-0.25", 10), seed=0)
    model = nn.Sequential(classifier, Moody() if network == "copied" else nn.Identity()).train()
    next(module for module in classifier.modules() if isinstance(module, nn.BatchNorm2d)).eval()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    next(iter(model.parameters())).requires_grad_(False)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in model.parameters()]
    modes = [module.training for module in model.modules()]
    random = torch.get_rng_state()

    x = pictures().requires_grad_()
    twin = FrozenTwin(model, x[:2].detach())
    twin.train()
    twin.refresh()
    twin(x).sum().backward()

    assert twin.folded == (network == "folded")
    assert x.grad is not None
    assert not any(module.training for module in twin.network.modules())
    assert not any(parameter.requires_grad for parameter in twin.parameters())
    assert all(bool((parameter.grad == 3).all()) for parameter in model.parameters())
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)


class Moody(nn.Module):
    """Its way depends on the data, which tracing can't follow."""

    def forward(self, logits: Tensor) -> Tensor:
        return logits if logits.sum() > 0 else 2 * logits


class Tied(nn.Module):
    """A convolution's weights are used once more on their own: folded, they would be others."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1, bias=False), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.relu(self.norm(self.conv(x))), self.conv.weight)


class Baked(nn.Module):
    """A buffer read as a number: a trace would keep the number of its day."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.register_buffer("scale", torch.tensor(1.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.scale.item()


class Derived(Baked):
    """A constant that is computed from a buffer while tracing."""

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * (1 / self.scale)


class Flagged(nn.Module):
    """Behaves otherwise under a trace."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) if isinstance(x, torch.fx.Proxy) else 2 * self.conv(x)


def doubled(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    return 2 * output


def with_hook() -> nn.Module:
    conv = nn.Conv2d(3, 3, 1)
    conv.register_forward_hook(doubled)
    return conv


class NaN(nn.Module):
    """Not a number where a trace looks, which no comparison with a tolerance would notice by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * torch.nan if isinstance(x, torch.fx.Proxy) else self.conv(x)


@pytest.mark.parametrize(
    ("build", "wrong_graph"),
    [
        (lambda: nn.Sequential(nn.Conv2d(3, 3, 1), Moody()), False),
        (Derived, False),
        (Tied, True),
        (Baked, True),
        (Flagged, True),
        (with_hook, True),
        (NaN, True),
    ],
    ids=["data-dependent", "derived", "tied", "baked", "flagged", "hook", "nan"],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_cannot_be_folded_is_copied(
    build: Callable[[], nn.Module], wrong_graph: bool, precision: Any, pictures: Any, settled: Any, caplog: Any
) -> None:
    """Even where BatchNorm is fresh, and a wrong graph would only show after some training."""
    torch.manual_seed(0)
    model = nn.Sequential(build(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = pictures()
    with caplog.at_level(logging.INFO, "compressor.frozen"):
        twin = FrozenTwin(model, x[:2], precision)
    assert not twin.folded
    assert twin.precision == "fp32"
    assert [record.levelname for record in caplog.records] == ["WARNING" if wrong_graph else "INFO"]
    settled(model)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.mul_(1.5)
    twin.refresh()
    torch.testing.assert_close(twin(x), model.eval()(x))


def test_without_running_statistics_images_are_not_parted(pictures: Any) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    x = pictures(6)
    twin = FrozenTwin(model, x)
    assert chunk_of(twin) is None
    torch.testing.assert_close(twin(x), model.eval()(x))


@pytest.mark.parametrize(("size", "chunk"), [(32, 32), (8, 512), (64, 8), (224, 4)])
def test_small_pictures_go_in_larger_chunks(size: int, chunk: int, pictures: Any) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert chunk_of(FrozenTwin(model, pictures(1, size))) == chunk
    assert chunk_of(model) is None


def test_in_chunks_is_the_same_answer(pictures: Any) -> None:
    seen: list[int] = []
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5))
    model.register_forward_pre_hook(lambda _module, inputs: seen.append(len(inputs[0])))
    x = pictures(7, 8)
    torch.testing.assert_close(in_chunks(model, x, 3), model(x))
    assert seen == [3, 3, 1, 7]
    assert not in_chunks(model, x, None).requires_grad
    assert in_chunks(model, x[:0], None).shape == (0, 5)


def test_there_is_a_folded_twin_or_none(pictures: Any) -> None:
    x = pictures()
    foldable = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    twin = folded_twin(foldable, x)
    assert twin is not None
    assert twin.folded
    assert folded_twin(nn.Sequential(foldable, Moody()), x) is None


def test_a_model_that_cannot_be_copied_is_attacked_as_it_is(pictures: Any) -> None:
    class Unique(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.handle = (value for value in ())

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).mean((2, 3))

    model = Unique()
    assert surrogate_of(model, pictures()) is model
