"""Numbers that must be the same on every device, and those that may differ by rounding or by design."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.attacks import _square
from compressor.attacks._apgd import random_start
from compressor.attacks._projection import move_to_hyperplane
from compressor.core.types import Threat
from compressor.evaluation.stages import on_device
from compressor.numerics import losses
from compressor.numerics.ascent import ascend, project
from compressor.numerics.augment import apply_variants, to_float_tensor, variant_count
from compressor.numerics.randomness import drawing_from, make_generator
from compressor.system.devices import full_float32, uses_tf32

LINF, L2 = Threat("Linf", "8/255"), Threat("L2", "0.5")
both_norms = pytest.mark.parametrize("threat", [LINF, L2], ids=str)


def unmoved(*_: Any) -> Tensor:
    raise AssertionError("no gradient is taken without steps")


def test_all_256_pixel_values_are_the_nearest_float(device: torch.device) -> None:
    values = torch.arange(256, dtype=torch.uint8)
    nearest = torch.from_numpy(np.arange(256, dtype=np.float32) / np.float32(255))
    assert torch.equal(to_float_tensor(values.to(device)).cpu(), nearest)
    assert torch.equal(on_device(values.numpy(), np.zeros(256, np.int64), device)[0].cpu(), nearest)


@pytest.mark.parametrize("side", [16, 32])
def test_augmentation_is_the_cpu_s_to_the_bit(side: int, device: torch.device) -> None:
    generator = make_generator(0, "pictures")
    count = variant_count(side)
    pictures = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    variants = torch.arange(count)
    expected = apply_variants(pictures, variants)
    assert torch.equal(apply_variants(pictures.to(device), variants.to(device)).cpu(), expected)
    assert torch.equal(apply_variants(pictures.to(device), variants).cpu(), expected)


@pytest.mark.parametrize("start", ["none", "uniform", "gaussian"])
def test_a_cpu_generator_gives_one_linf_start_everywhere(start: Any, device: torch.device, noise: Any) -> None:
    x = noise(0, 8, 3, 16, 16)
    settings = {"steps": 0, "step_size": 0.0, "start": start, "start_scale": 0.5}
    here = ascend(unmoved, x, LINF, make_generator(3), **settings)
    there = ascend(unmoved, x.to(device), LINF, make_generator(3), **settings)
    assert torch.equal(here, there.cpu())


def test_a_cpu_generator_gives_one_start_of_apgd_and_square_everywhere(device: torch.device, noise: Any) -> None:
    x = noise(0, 8, 3, 16, 16)
    assert torch.equal(
        random_start(x, LINF, make_generator(3)), random_start(x.to(device), LINF, make_generator(3)).cpu()
    )
    here, there = make_generator(3), make_generator(3)
    ours, theirs = _square.start(x, LINF, here), _square.start(x.to(device), LINF, there)
    for query in range(5):
        assert torch.equal(ours, theirs.cpu())
        ours = _square.propose(ours, x, LINF, query, here)
        theirs = _square.propose(theirs, x.to(device), LINF, query, there)


def test_in_l2_starts_and_windows_differ_by_rounding_alone(device: torch.device, noise: Any) -> None:
    x = noise(0, 8, 3, 16, 16)
    for drawn in (
        lambda x: ascend(unmoved, x, L2, make_generator(3), steps=0, step_size=0.0),
        lambda x: random_start(x, L2, make_generator(3)),
        lambda x: _square.propose(_square.start(x, L2, make_generator(3)), x, L2, 3, make_generator(4)),
    ):
        torch.testing.assert_close(drawn(x.to(device)).cpu(), drawn(x), rtol=0, atol=1e-5)


def test_a_generator_of_the_device_repeats_and_is_not_the_cpu_s(device: torch.device) -> None:
    def draw(where: torch.device) -> Tensor:
        return torch.rand(100, generator=make_generator(3, device=where), device=where).cpu()

    assert torch.equal(draw(device), draw(device))
    # Training and validation draw on the device: their starts are other ones than the CPU's, and promise nothing else.
    assert torch.equal(draw(device), draw(torch.device("cpu"))) == (device.type == "cpu")


def test_dropout_draws_what_its_key_fixes_and_leaves_no_trace(device: torch.device) -> None:
    def states() -> list[Tensor]:
        return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]

    def drop() -> Tensor:
        with drawing_from(1, "dropout", device=device):
            return nn.functional.dropout(torch.ones(1000, device=device), 0.5)

    torch.rand(1, device=device)
    before = states()
    first = drop()
    assert all(map(torch.equal, states(), before))
    torch.rand(7, device=device)
    assert torch.equal(drop(), first)


@both_norms
def test_projections(threat: Threat, device: torch.device, noise: Any) -> None:
    x, far = noise(0, 8, 3, 16, 16), noise(1, 8, 3, 16, 16)
    here, there = project(far, x, threat), project(far.to(device), x.to(device), threat).cpu()
    if threat.norm == "Linf":
        assert torch.equal(here, there)  # the very test that a verifier applies
    torch.testing.assert_close(there, here, rtol=0, atol=1e-6)
    normal, offset = noise(2, 8, 768) - 0.5, noise(3, 8) - 0.5
    moved = move_to_hyperplane(x.flatten(1).to(device), normal.to(device), offset.to(device), threat.norm)
    torch.testing.assert_close(
        moved.cpu(), move_to_hyperplane(x.flatten(1), normal, offset, threat.norm), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("loss", ["cross_entropy", "cw_margin", "dlr", "targeted_dlr", "kl_divergence", "is_wrong"])
def test_losses_and_their_gradients(loss: str, device: torch.device, noise: Any) -> None:
    logits, other, labels = 8 * noise(0, 32, 10) - 4, 8 * noise(1, 32, 10) - 4, torch.arange(32) % 10
    targets = (labels + 1) % 10

    def values(where: torch.device) -> tuple[Tensor, Tensor]:
        leaf = logits.to(where).requires_grad_()
        rest = {
            "kl_divergence": (other.to(where),),
            "targeted_dlr": (labels.to(where), targets.to(where)),
        }.get(loss, (labels.to(where),))
        found = getattr(losses, loss)(leaf, *rest)
        if found.dtype == torch.bool:
            return found.cpu(), found.cpu()
        (gradient,) = torch.autograd.grad(found.sum(), leaf)
        return found.detach().cpu(), gradient.cpu()

    for found, expected in zip(values(device), values(torch.device("cpu")), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_full_float32_is_full_float32(device: torch.device, noise: Any) -> None:
    x, weight = noise(0, 4, 64, 16, 16), noise(1, 64, 64, 3, 3) - 0.5
    oracle = nn.functional.conv2d(x.double(), weight.double(), padding=1)

    def error() -> float:
        found = nn.functional.conv2d(x.to(device), weight.to(device), padding=1).cpu().double()
        product = (x.flatten(1)[:, :576].to(device) @ weight.flatten(1).T.to(device)).cpu().double()
        exact = x.flatten(1)[:, :576].double() @ weight.flatten(1).T.double()
        return max(
            float((found - oracle).abs().max() / oracle.abs().max()),
            float((product - exact).abs().max() / exact.abs().max()),
        )

    with full_float32():
        assert error() < 1e-5
        assert not uses_tf32(device)


def test_channels_last_stays_channels_last(
    device: torch.device, classifier: nn.Module, pictures: tuple[Tensor, Tensor], near: Callable[..., None]
) -> None:
    x = to_float_tensor(pictures[0])
    expected = classifier(x)
    seen: list[Tensor] = []
    turned = classifier.to(device).to(memory_format=torch.channels_last)
    hooks = [
        layer.register_forward_hook(lambda _, __, output: seen.append(output))
        for layer in turned.modules()
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d)
    ]
    images = x.to(device).contiguous(memory_format=torch.channels_last)
    near(turned(images), expected)
    for hook in hooks:
        hook.remove()
    assert seen
    assert all(output.is_contiguous(memory_format=torch.channels_last) for output in seen)
    labels = turned(images).argmax(1)
    x_adv = ascend(
        lambda x_adv, index: losses.cross_entropy(turned(x_adv), labels[index]), images, LINF, make_generator(0),
        steps=2, step_size=0.01,
    )  # fmt: skip
    assert x_adv.is_contiguous()
