"""Twins, methods, autocast and copies: one step on the device is what it is on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.checkpoint import LoadedCheckpoint, named_normalization
from compressor.core.contracts import Batch, Progress, Split, SplitName
from compressor.core.registry import METHODS
from compressor.core.reporting import SilentReporter
from compressor.core.types import ModelSpec, Threat
from compressor.evaluation.quick import measure
from compressor.frozen import FrozenTwin, choose_precision, chunk_of, surrogate_of
from compressor.models.classifier import Classifier
from compressor.numerics.ascent import differentiate
from compressor.numerics.augment import to_float_tensor
from compressor.numerics.losses import cross_entropy
from compressor.runs.recipe import resolve
from compressor.system.process_group import ProcessGroup
from compressor.training.batches import BatchLoader, Share
from compressor.training.step.outer_precision import FloatLogits, outer_autocast
from compressor.training.teacher_file import settle_open_questions
from compressor.training.teaching.teacher import FrozenTeacher
from compressor.training.timing import Stopwatch
from tests.support.networks import Brightness

Near = Callable[..., None]
Pictures = tuple[Tensor, Tensor]
CPU = torch.device("cpu")

# A gradient's sum runs over all images and pixels, and rounding opens or closes a ReLU whose input is all but zero.
GRADIENTS = 1e-2
BFLOAT16 = 0.1  # what the twin allows itself


def gradient_of(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return differentiate(
        lambda x_adv, index: cross_entropy(model(x_adv), y[index]), x, torch.arange(len(x), device=x.device), len(x)
    )


def is_close_in_length(found: Tensor, expected: Tensor, part: float) -> bool:
    found, expected = found.detach().double().cpu(), expected.detach().double().cpu()
    return float((found - expected).norm()) <= part * float(expected.norm())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_frozen_twin(
    precision: Any, device: torch.device, classifier: nn.Module, fresh: Any, pictures: Pictures, near: Near
) -> None:
    x, y = to_float_tensor(pictures[0]), pictures[1]
    model = copy.deepcopy(classifier).to(device)
    twin = FrozenTwin(model, x[:8].to(device), precision)
    assert twin.folded
    assert twin.precision == precision
    assert (chunk_of(twin) is None) == (device.type == "cuda")
    values, gradient = gradient_of(twin, x.to(device), y.to(device))
    expected, slope = gradient_of(classifier, x, y)
    assert twin(x.to(device)).dtype == torch.float32
    near(twin(x.to(device)), classifier(x), 1e-4 if precision == "fp32" else BFLOAT16)
    if precision == "fp32":
        torch.testing.assert_close(values.cpu(), expected, rtol=1e-3, atol=1e-4)
        assert is_close_in_length(gradient, slope, GRADIENTS)
    assert gradient.dtype == torch.float32

    other = fresh(7).eval()
    model.load_state_dict(other.state_dict())
    twin.refresh()
    near(twin(x.to(device)), other(x), 1e-3 if precision == "fp32" else BFLOAT16)


def test_a_precision_can_be_chosen(device: torch.device, classifier: nn.Module, pictures: Pictures) -> None:
    x = to_float_tensor(pictures[0][:8]).to(device)
    assert choose_precision(classifier.to(device), x, with_gradient=True) in ("fp32", "bf16")


@pytest.mark.parametrize("proposals", ["fp32", "bf16"])
def test_a_surrogate_says_what_its_model_says(
    proposals: Any, device: torch.device, classifier: nn.Module, pictures: Pictures
) -> None:
    x, y = to_float_tensor(pictures[0]).to(device), pictures[1].to(device)
    model = classifier.to(device)
    surrogate: Any = surrogate_of(model, x[:8], proposals)
    x_adv = (x + 0.1 * torch.randn(x.shape, device=device)).clamp(0, 1)
    assert torch.equal(surrogate.confirm_misclassified(x_adv, y, surrogate(x_adv)), model(x_adv).argmax(1) != y)


@pytest.mark.parametrize("epoch", [0, 9])
@pytest.mark.parametrize("method", sorted(METHODS.members()))
def test_the_terms_of_a_method_and_their_gradients(
    method: str, epoch: int, device: torch.device, classifier: nn.Module, fresh: Any, pictures: Pictures, noise: Any
) -> None:
    natural, labels = to_float_tensor(pictures[0]), pictures[1]
    x_adv = (natural + 0.06 * (noise(0, *natural.shape) - 0.5)).clamp(0, 1)

    def step(where: torch.device) -> dict[str, Tensor]:
        student = fresh(1).to(where).to(memory_format=torch.channels_last)
        teacher = FrozenTeacher(copy.deepcopy(classifier).to(where))
        x, y = natural.to(where), labels.to(where)
        batch = Batch(x, y, teacher.soft_labels(x), 0.1)
        found = {}
        made = METHODS.get(method)()
        objective = made.inner(student.eval(), teacher, batch)
        if objective is not None:
            values, slope = differentiate(objective, x_adv.to(where), torch.arange(len(x), device=where), len(x))
            found |= {"objective": values, "slope": slope}
        terms = made.outer(student.train(), teacher, batch, x_adv.to(where), Progress(epoch, 10, 0, 1))
        terms["total"].backward()
        gradients = [p.grad.flatten() for p in student.parameters() if p.grad is not None]
        statistics = [b.flatten() for b in student.buffers() if b.is_floating_point()]
        found |= {"gradient": torch.cat(gradients), "statistics": torch.cat(statistics)}
        return {name: value.detach().cpu() for name, value in (found | terms).items()}

    here, there = step(CPU), step(device)
    assert here.keys() == there.keys()
    for name, expected in here.items():
        if name in ("slope", "gradient"):
            assert is_close_in_length(there[name], expected, GRADIENTS), name
        else:
            torch.testing.assert_close(
                there[name], expected, rtol=1e-3, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
            )


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_autocast_casts_the_layers_and_neither_the_logits_nor_the_teacher(
    precision: str, dtype: torch.dtype, device: torch.device, classifier: nn.Module, pictures: Pictures
) -> None:
    x = to_float_tensor(pictures[0][:4]).to(device)
    student, teacher = copy.deepcopy(classifier).to(device), FrozenTeacher(copy.deepcopy(classifier).to(device))
    alone = teacher(x)
    with outer_autocast(resolve("sat", "resnet18", None, {"outer_precision": precision}), device):
        assert student(x).dtype == dtype
        logits = FloatLogits(student)(x)
        assert logits.dtype == cross_entropy(logits, logits.argmax(1)).dtype == torch.float32
        inside = teacher(x)
        assert inside.dtype == torch.float32
    assert torch.equal(inside, alone)


def test_measuring_gives_the_counts_of_the_cpu(device: torch.device, classifier: nn.Module, pictures: Pictures) -> None:
    arguments: dict[str, Any] = {"steps": 0, "seed": 0, "batch_size": 7}
    here = measure(classifier, *pictures, Threat(), device=CPU, **arguments)
    there = measure(copy.deepcopy(classifier).to(device), *pictures, Threat(), device=device, **arguments)
    assert (there.samples, there.clean_correct) == (here.samples, here.clean_correct)
    assert there.entropy == pytest.approx(here.entropy, rel=1e-3, abs=1e-5)
    attacked = measure(classifier.to(device), *pictures, Threat(), device=device, steps=5, seed=0, batch_size=7)
    assert attacked.robust_correct <= there.clean_correct


class Greys:
    """Dark pictures and bright ones."""

    name, class_names, image_size = "greys", ("dark", "bright", "neither"), 16

    def has(self, split: SplitName) -> bool:
        return split == "train"

    def load(self, split: SplitName) -> Split:
        levels = np.arange(250, dtype=np.uint8)
        pixels = levels.reshape(-1, 1, 1, 1).repeat(3, 1).repeat(16, 2).repeat(16, 3)
        return Split(pixels, (levels > 127).astype(np.int64))


def test_a_teacher_is_settled_on_the_device_and_comes_back(device: torch.device) -> None:
    names = ("none", "half")
    specs = tuple(ModelSpec("wideresnet-10-1", 3, 16, normalization=named_normalization(name)) for name in names)
    loaded = LoadedCheckpoint(Classifier(specs[0], Brightness()).eval(), specs[0], {}, "", (), specs)
    settled = settle_open_questions(loaded, Greys(), reporter=SilentReporter(), device=device)
    assert settled.spec == specs[1]
    assert {t.device for t in (*settled.classifier.parameters(), *settled.classifier.buffers())} == {CPU}


def _feeder(where: torch.device, stripes: Any, augmentation: str) -> BatchLoader:
    recipe = resolve(
        "natural",
        "wideresnet-10-1",
        None,
        {"image_size": 16, "batch_size": 8, "augmentation": augmentation, "epochs": 1},
    )
    return BatchLoader(recipe, stripes.load("train"), where, ProcessGroup(), None, Stopwatch(where, profile=False))


@pytest.mark.parametrize("augmentation", ["none", "crop-flip"])
def test_batches_that_are_copied_ahead_are_the_cpu_s_to_the_bit(
    augmentation: str, device: torch.device, stripes: Any
) -> None:
    here = list(_feeder(CPU, stripes, augmentation).shares(0, 0))
    there: list[Share] = []
    busy = torch.rand(512, 512, device=device)
    for share in _feeder(device, stripes, augmentation).shares(0, 0):
        for _ in range(20):  # the copies of the next batch run while the device computes
            busy = busy @ busy / 512
        there.append(share)
    assert len(here) == len(there) == 12
    for ours, theirs in zip(here, there, strict=True):
        assert theirs.batch.x.device == theirs.batch.y.device == device
        assert theirs.batch.x.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(ours.batch.x, theirs.batch.x.cpu())
        assert torch.equal(ours.batch.y, theirs.batch.y.cpu())
        assert np.array_equal(ours.index.cpu(), theirs.index.cpu())
