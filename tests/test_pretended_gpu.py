"""On a pretended GPU: no part of a step mixes devices, and none reads a value, which would wait for the GPU."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.attacks import _fab, _projection, _square
from compressor.attacks._apgd import _Run, random_start
from compressor.core.contracts import Batch, Progress
from compressor.core.registry import METHODS
from compressor.core.types import ModelSpec, Threat
from compressor.frozen import in_chunks
from compressor.models.classifier import build_classifier
from compressor.numerics import augment, losses
from compressor.numerics.ascent import ascend, differentiate, project
from compressor.training.step.averaging import approach
from compressor.training.step.perturbations import Perturbations
from compressor.training.step.step_losses import StepLosses
from compressor.training.step.weight_perturbation import perturbed_weights
from compressor.training.teaching.teacher import FrozenTeacher

Pretend = Callable[[], AbstractContextManager[Any]]

CLASSES = 4
THREATS = [Threat("Linf", "8/255"), Threat("L2", "0.5")]
both_norms = pytest.mark.parametrize("threat", THREATS, ids=str)


def network(gpu: Any) -> nn.Module:
    with gpu.device:
        return build_classifier(ModelSpec("wideresnet-10-1", CLASSES, 16))


def objective_of(model: nn.Module, y: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x_adv, index: losses.cross_entropy(model(x_adv), y[index])


def is_there(*tensors: Tensor) -> bool:
    return all(tensor.device == torch.device("cuda", 0) for tensor in tensors)


@pytest.mark.parametrize("mistake", ["mixed", "read", "shaped", "indexed"])
def test_the_stand_in_notices(mistake: str, pretended_gpu: Pretend) -> None:
    with pretended_gpu() as gpu:
        x, here = gpu.images(4), torch.zeros(4, 3, 16, 16)
        mistakes = {
            "mixed": lambda: x + here,
            "read": lambda: bool(x.any()),
            "shaped": lambda: torch.nonzero(x),
            "indexed": lambda: x[x > 0],
        }
        with pytest.raises(Exception, match=r"same device|_local_scalar_dense|nonzero"):
            mistakes[mistake]()


@both_norms
@pytest.mark.parametrize("start", ["none", "uniform", "gaussian"])
def test_starts_and_projections(start: Any, threat: Threat, pretended_gpu: Pretend) -> None:
    with pretended_gpu() as gpu:
        x = gpu.images(4)
        begun = ascend(lambda *_: x, x, threat, torch.Generator(), steps=0, step_size=0.0, start=start, start_scale=0.5)
        assert is_there(begun, project(begun, x, threat), random_start(x, threat, torch.Generator()))


@pytest.mark.parametrize("chunk", [2, 4])
def test_gradients_in_chunks(chunk: int, pretended_gpu: Pretend) -> None:
    with pretended_gpu() as gpu:
        model, x, y = network(gpu), gpu.images(4), gpu.labels(4)
        values, gradient = differentiate(objective_of(model, y), x, torch.arange(4, device=gpu.device), chunk)
        assert is_there(values, gradient, in_chunks(model, x, chunk))
        assert gradient.shape == x.shape


@pytest.mark.parametrize("method", sorted(METHODS.members()))
@pytest.mark.parametrize("epoch", [0, 9])
def test_what_a_method_computes(method: str, epoch: int, pretended_gpu: Pretend) -> None:
    with pretended_gpu() as gpu:
        made, student, x, y = METHODS.get(method)(), network(gpu), gpu.images(4), gpu.labels(4)
        teacher = FrozenTeacher(network(gpu))
        batch = Batch(x, y, teacher.soft_labels(x), 0.1)
        objective = made.inner(student, teacher, batch)
        if objective is not None:
            assert is_there(*differentiate(objective, x, torch.arange(4, device=gpu.device), 4))
        terms = made.outer(student, teacher, batch, gpu.images(4), Progress(epoch, 10, 0, 1))
        assert is_there(*terms.values())
        assert "total" in terms
        StepLosses().add(terms)


@pytest.mark.parametrize("loss", ["cross_entropy", "cw_margin", "dlr", "is_wrong"])
def test_losses(loss: str, pretended_gpu: Pretend) -> None:
    with pretended_gpu() as gpu:
        logits, y = torch.empty(4, CLASSES, device=gpu.device), gpu.labels(4)
        assert is_there(getattr(losses, loss)(logits, y))
        assert is_there(losses.targeted_dlr(logits, y, y), losses.targeted_margin(logits, y, y))


def test_augmentation(pretended_gpu: Pretend) -> None:
    with pretended_gpu() as gpu:
        pixels = torch.empty(4, 3, 16, 16, dtype=torch.uint8, device=gpu.device)
        variants = torch.zeros(4, dtype=torch.int64)
        for given in (variants, variants.to(gpu.device)):
            x = augment.apply_variants(pixels, given)
            assert is_there(x)
            assert x.dtype == torch.float32
        frames = torch.empty(4, 3, 20, 20, device=gpu.device)
        assert is_there(augment.paste_variants(frames, x, variants))


def test_perturbations_are_kept_on_the_cpu(pretended_gpu: Pretend) -> None:
    with pretended_gpu() as gpu:
        kept = Perturbations(10, 3, 16, 8 / 255)
        index, variants = torch.arange(4), torch.zeros(4, dtype=torch.int64)
        kept.keep(index, variants, gpu.images(4))
        kept.keep(index.to(gpu.device), variants.to(gpu.device), gpu.images(4))  # as gathered from several processes
        assert kept.recall(index, variants).device.type == "cpu"


def test_the_extras_of_an_outer_step(pretended_gpu: Pretend) -> None:
    with pretended_gpu() as gpu:
        student, average, x, y = network(gpu), network(gpu), gpu.images(4), gpu.labels(4)
        with perturbed_weights(student, lambda model: losses.cross_entropy(model(x), y).mean(), 0.01):
            assert is_there(student(x))
        approach(average, student, 0.1)


@both_norms
def test_the_moves_of_apgd(threat: Threat, pretended_gpu: Pretend) -> None:
    with pretended_gpu() as gpu:
        model, x, y = network(gpu), gpu.images(4), gpu.labels(4)
        run = _Run.begin(x, y, x, threat)
        wrong = run.evaluate(model, lambda logits, index: losses.dlr(logits, y[index]), 2, with_gradient=True)
        run.restart_counts()
        run.move(threat, momentum=False)
        run.move(threat, momentum=True)
        run.adapt(3)
        run.return_to_best()
        assert is_there(wrong, *(value for value in vars(run).values()))


@both_norms
def test_the_windows_of_square(threat: Threat, pretended_gpu: Pretend, monkeypatch: pytest.MonkeyPatch) -> None:
    # Numbers are drawn by the CPU's generator, which waits for nobody; here not even they have values.
    monkeypatch.setattr(_square, "_draw", lambda choices, generator: choices - 1)
    _square._bump.cache_clear()
    with pretended_gpu() as gpu:
        x, generator = gpu.images(4), torch.Generator()
        begun = _square.start(x, threat, generator)
        assert is_there(begun, _square.propose(begun, x, threat, 3, generator))
    _square._bump.cache_clear()


@both_norms
def test_the_steps_of_fab(threat: Threat, pretended_gpu: Pretend, monkeypatch: pytest.MonkeyPatch) -> None:
    # Newton's method asks whether it has arrived, which is all that it waits for.
    monkeypatch.setattr(
        _projection, "_time_to_cover", lambda gap, weight, speed, room: (gap + room.sum(1)) * speed[0, 0]
    )
    with pretended_gpu() as gpu:
        model, x, y = network(gpu), gpu.images(4), gpu.labels(4)
        lead, gradient = _fab._differentiate_lead(model, x, y, y, 2)
        assert is_there(_fab._step(x, x, lead, gradient, threat.norm))


@both_norms
def test_an_ascent_without_an_early_exit_reads_nothing(threat: Threat, pretended_gpu: Pretend) -> None:
    with pretended_gpu() as gpu:
        model, x, y = network(gpu), gpu.images(4), gpu.labels(4)
        found = ascend(
            objective_of(model, y), x, threat, torch.Generator(), steps=3, step_size=0.1, chunk=2, early_exit=False
        )
        assert is_there(found)
