"""Weight averages against torch's own, against sums by hand, and through the whole loop."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from compressor.core.contracts import Progress
from compressor.core.types import ModelSpec
from compressor.models.classifier import Classifier, build_classifier
from compressor.runs.recipe import Recipe, resolve
from compressor.system.process_group import ProcessGroup
from compressor.training.step.averaging import ExponentialAverage, NoAverage, StochasticAverage, decay_at, make_average
from compressor.training.step.batch_statistics import estimate_statistics

IMAGES = [torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(n)) for n in range(3)]


def recipe(**settings: object) -> Recipe:
    return resolve("sat", "wideresnet-10-1", None, {"epochs": 4, **settings})


@pytest.fixture
def student() -> Classifier:
    return build_classifier(ModelSpec("wideresnet-10-1", 3, 16), seed=0)


def move(model: nn.Module, by: float) -> None:
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.add_(by if tensor.is_floating_point() else 1)


def same(a: nn.Module, b: nn.Module) -> bool:
    mine, theirs = a.state_dict(), b.state_dict()
    return all(torch.equal(mine[name], theirs[name]) for name in theirs)


def epoch_images(epoch: int) -> Iterator[Tensor]:
    return iter(IMAGES)


def test_ema_is_what_torch_computes(student: Classifier) -> None:
    average = ExponentialAverage(student, recipe(weight_average="ema", ema_decay=0.1, ema_warmup=0.0))
    # From the first step on the dynamic decay is above 0.1, so that the constant one counts.
    oracle = AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(0.1), use_buffers=True)
    oracle.update_parameters(student)  # the first call copies
    for step in range(3):
        move(student, 0.5)
        average.after_step(Progress(0, 4, step, 10))
        oracle.update_parameters(student)
    for mine, theirs in zip(average.model.parameters(), oracle.module.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)
    for mine, theirs in zip(average.model.buffers(), oracle.module.buffers(), strict=True):
        if mine.is_floating_point():
            torch.testing.assert_close(mine, theirs)
        else:
            assert int(mine) == 3  # counters are copied: averaging them would say nothing


def test_before_its_warm_up_ends_the_average_is_the_student(student: Classifier) -> None:
    average = ExponentialAverage(student, recipe(ema_warmup=0.25))
    for step in range(9):
        move(student, 0.5)
        average.after_step(Progress(0, 4, step, 10))
    assert same(average.model, student)
    assert average.model is not student
    for step in (9, 10):
        move(student, 0.5)
        average.after_step(Progress(step // 10, 4, step % 10, 10))
    assert not same(average.model, student)


@pytest.mark.parametrize(("step", "expected"), [(-1, 0), (0, 0.1), (8, 0.5), (10_000, 0.995)])
def test_the_decay_grows_from_a_tenth(step: int, expected: float) -> None:
    assert decay_at(step, 0.995) == pytest.approx(expected)


def test_swa_is_the_mean_of_the_epochs_from_its_start_and_its_statistics_are_torchs(student: Classifier) -> None:
    average = StochasticAverage(student, recipe(swa_start=0.5), epoch_images, ProcessGroup())
    seen = []
    for epoch in range(4):
        move(student, 0.1)
        before = copy.deepcopy(student)
        average.after_epoch(epoch, lambda: None)
        assert same(student, before)
        assert (average.model is student) is (epoch < 2)
        if epoch >= 2:
            seen.append([p.detach().clone() for p in student.parameters()])
    for mine, *epochs in zip(average.model.parameters(), *seen, strict=True):
        torch.testing.assert_close(mine.detach(), sum(epochs) / len(epochs))

    oracle = copy.deepcopy(average.model)
    update_bn(IMAGES, oracle)
    assert average.model.training == oracle.training
    for mine, theirs in zip(average.model.buffers(), oracle.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_an_epoch_taken_in_twice_counts_once(student: Classifier) -> None:
    """An interruption while the statistics are estimated makes the loop come again."""
    average = StochasticAverage(student, recipe(swa_start=0.5), epoch_images, ProcessGroup())
    average.after_epoch(2, lambda: None)
    move(student, 0.1)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        average.after_epoch(3, stop)
    again = StochasticAverage(student, recipe(swa_start=0.5), epoch_images, ProcessGroup())
    again.load_state_dict(average.state_dict())
    for one in (average, again):
        one.after_epoch(3, lambda: None)
    assert same(average.model, again.model)
    assert average.state_dict()["count"] == 2


def test_swa_that_would_start_beyond_the_end_takes_the_last_epoch(student: Classifier) -> None:
    average = StochasticAverage(student, recipe(swa_start=0.99), epoch_images, ProcessGroup())
    average.after_epoch(3, lambda: None)
    assert average.model is not student


def test_statistics_leave_modes_momenta_and_dropout_alone() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=0.3), nn.Dropout(0.9), nn.Flatten())
    model.train()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    estimate_statistics(model, IMAGES, ProcessGroup())
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in model.modules())
    assert model[1].momentum == 0.3
    convolved = [model[0](x).transpose(0, 1).flatten(1) for x in IMAGES]
    torch.testing.assert_close(model[1].running_mean, torch.stack([c.mean(1) for c in convolved]).mean(0).detach())


def test_the_recipe_chooses(student: Classifier) -> None:
    kinds = {"none": NoAverage, "ema": ExponentialAverage, "swa": StochasticAverage}
    for name, kind in kinds.items():
        assert isinstance(make_average(student, recipe(weight_average=name), epoch_images, ProcessGroup()), kind)
    assert NoAverage(student).model is student
