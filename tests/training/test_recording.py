"""The recorded inner maximisation: it computes what the plain one does, on a stand-in for the GPU's recorder."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from compressor.core.contracts import Batch
from compressor.core.types import ModelSpec
from compressor.frozen import FrozenTwin
from compressor.frozen.graphs import Recording
from compressor.models.classifier import build_classifier
from compressor.numerics.ascent import draw_start
from compressor.numerics.randomness import make_generator
from compressor.runs.recipe import Recipe
from compressor.training.inner import InnerMaximisation
from compressor.training.recording import RecordedInner

SIDE, CLASSES = 16, 10


def record_on_cpu(compute: Callable[[], Tensor]) -> Recording:
    """What a CUDA graph promises: one output, computed anew from the memory that was read while recording."""
    output = compute().clone()
    return Recording(output, lambda: output.copy_(compute()))  # type: ignore[arg-type,return-value]


def make(method: str = "rslad") -> tuple[InnerMaximisation, nn.Module, FrozenTwin]:
    recipe = Recipe(method, "mobilenetv2-0.25", image_size=SIDE, attack_steps=3)
    student = build_classifier(ModelSpec("mobilenetv2-0.25", CLASSES, SIDE), seed=0).eval()
    teacher = build_classifier(ModelSpec("wideresnet-10-1", CLASSES, SIDE), seed=1).eval().requires_grad_(False)
    twin = FrozenTwin(student, torch.rand(4, 3, SIDE, SIDE, generator=make_generator("sample")))
    return InnerMaximisation(recipe, recipe.build_method(), twin, teacher), student, twin


def batch(number: int, size: int = 6) -> tuple[Batch, Tensor]:
    generator = make_generator("batch", number)
    x = torch.rand(size, 3, SIDE, SIDE, generator=generator).contiguous(memory_format=torch.channels_last)
    y = torch.randint(CLASSES, (size,), generator=generator)
    logits = torch.randn(size, CLASSES, generator=generator)
    recipe = Recipe("rslad", "mobilenetv2-0.25")
    return Batch(x, y, logits), draw_start(x, recipe.threat, generator, "gaussian", 0.001)


@pytest.mark.parametrize("method", ["rslad", "sat", "trades", "mart", "adaad", "igdm"])
def test_replays_give_the_images_of_the_plain_computation(method: str) -> None:
    inner, _, _ = make(method)
    recorded = RecordedInner(inner, record_on_cpu)
    found = [recorded(*batch(number)) for number in range(3)]
    assert recorded.is_recorded
    for number, x_adv in enumerate(found):  # after all of them: no batch may overwrite an earlier one's result
        assert torch.equal(x_adv, inner(*batch(number)))


def test_a_batch_of_another_size_is_computed_plainly_and_the_recording_stays() -> None:
    inner, _, _ = make()
    recorded = RecordedInner(inner, record_on_cpu)
    recorded(*batch(0))
    assert torch.equal(recorded(*batch(1, size=4)), inner(*batch(1, size=4)))
    assert torch.equal(recorded(*batch(2)), inner(*batch(2)))
    assert recorded.is_recorded


def test_replays_see_the_weights_that_the_twin_has_taken_over() -> None:
    """A recording reads memory by its address: a refresh must write in place."""
    inner, student, twin = make()
    recorded = RecordedInner(inner, record_on_cpu)
    recorded(*batch(0))
    before = {name: tensor.data_ptr() for name, tensor in twin.state_dict().items()}
    with torch.no_grad():
        for tensor in (*student.parameters(), *student.buffers()):
            if tensor.is_floating_point():
                tensor.mul_(0.9).add_(0.01)
    twin.refresh()
    assert {name: tensor.data_ptr() for name, tensor in twin.state_dict().items()} == before
    assert torch.equal(recorded(*batch(1)), inner(*batch(1)))


def test_a_recording_that_gives_other_images_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    inner, _, _ = make()

    def stale(compute: Callable[[], Tensor]) -> Recording:
        return Recording(torch.zeros_like(compute()), lambda: None)

    recorded = RecordedInner(inner, stale)
    with caplog.at_level(logging.WARNING, "compressor.training"):
        assert torch.equal(recorded(*batch(0)), inner(*batch(0)))
    assert "other images" in caplog.text
    assert not recorded.is_recorded
    assert torch.equal(recorded(*batch(1)), inner(*batch(1)))


def test_a_recorder_that_fails_leaves_the_plain_computation(caplog: pytest.LogCaptureFixture) -> None:
    inner, _, _ = make()

    def refuse(compute: Callable[[], Tensor]) -> Recording:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    recorded = RecordedInner(inner, refuse)
    with caplog.at_level(logging.WARNING, "compressor.training"):
        assert torch.equal(recorded(*batch(0)), inner(*batch(0)))
    assert "not permitted when stream is capturing" in caplog.text
    assert "and more" not in caplog.text
    assert torch.equal(recorded(*batch(1)), inner(*batch(1)))


def test_a_computation_that_varies_by_itself_may_vary_as_much_when_replayed() -> None:
    """A GPU's sums may come in another order each time; the recording must then not be held to the last bit."""
    noise = make_generator("order of sums")

    def varying(batch: Batch, start: Tensor) -> Tensor:
        return start + 1e-6 * torch.rand(start.shape, generator=noise)

    recorded = RecordedInner(varying, record_on_cpu)
    recorded(*batch(0))
    assert recorded.is_recorded
