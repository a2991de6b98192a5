"""Which images come when: the same for any number of processes, each image once an epoch, prepared ahead."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compressor.augment import apply_variants, choose_variants, permutation
from compressor.contracts import Split
from compressor.errors import UsageError
from compressor.team import Team
from compressor.training.feeder import Feeder
from compressor.training.recipe import Recipe
from compressor.training.soft_labels import SoftLabels
from compressor.training.stopwatch import Stopwatch
from compressor.training.teacher import FrozenTeacher

CPU = torch.device("cpu")
N, SIDE = 37, 16


def split() -> Split:
    images = np.random.default_rng(0).integers(0, 256, (N, 3, SIDE, SIDE), dtype=np.uint8)
    return Split(images, np.arange(N) % 3, origin=np.arange(N) * 2 + 1)


def make(
    batch: int = 8, accumulation: int = 1, rank: int = 0, size: int = 1, labels: SoftLabels | None = None,
    augmentation: str = "crop-flip",
) -> Feeder:  # fmt: skip
    recipe = Recipe.from_dict(
        {
            "method": "natural", "model": "wideresnet-10-1", "image_size": SIDE, "batch_size": batch,
            "accumulation": accumulation, "augmentation": augmentation, "seed": 3,
        }
    )  # fmt: skip
    return Feeder(recipe, split(), CPU, Team(rank, size), labels, Stopwatch(CPU, wait=False))


def test_an_epoch_shows_every_image_once_in_the_order_of_its_permutation() -> None:
    feeder = make()
    shares = list(feeder.shares(2, 0))
    assert torch.equal(torch.cat([share.index for share in shares]), torch.from_numpy(permutation(3, 2, N)))
    assert [share.step for share in shares] == list(range(feeder.steps)) == [0, 1, 2, 3, 4]
    assert all(share.is_first and share.is_last for share in shares)
    assert feeder.images_per_epoch == N


def test_a_share_holds_its_images_augmented_by_their_variants() -> None:
    share = list(make().shares(1, 0))[2]
    index = share.index.numpy()
    variants = choose_variants(3, 1, index, SIDE)
    assert np.array_equal(share.variants.numpy(), variants)
    expected = apply_variants(torch.from_numpy(split().images[index]), torch.from_numpy(variants))
    assert torch.equal(share.batch.x, expected)
    assert torch.equal(share.batch.y, torch.from_numpy(split().labels[index]))


def test_starting_at_a_step_gives_the_rest_of_the_epoch() -> None:
    whole, rest = list(make().shares(0, 0)), list(make().shares(0, 3))
    assert [share.step for share in rest] == [3, 4]
    for a, b in zip(whole[3:], rest, strict=True):
        assert torch.equal(a.batch.x, b.batch.x)


def test_after_the_last_step_there_is_nothing() -> None:
    assert list(make().shares(0, 5)) == []


@pytest.mark.parametrize(("size", "accumulation"), [(2, 1), (1, 2), (2, 2), (4, 1)])
def test_processes_and_passes_part_the_same_batches(size: int, accumulation: int) -> None:
    alone = list(make().shares(0, 0))
    parts = [list(make(8, accumulation, rank, size).shares(0, 0)) for rank in range(size)]
    for step, whole in enumerate(alone):
        mine = [share for shares in parts for share in shares if share.step == step]
        together = torch.cat([share.index for share in mine]) if mine else torch.empty(0)
        assert {len(share.index) for share in mine} <= {len(whole.index) // (size * accumulation)}
        assert torch.equal(together, whole.index[: len(together)])
        # A last batch may lose what cannot be parted evenly.
        assert len(whole.index) - len(together) < size * accumulation * 2
    numbers = [share.number for shares in parts for share in shares if share.step == 0]
    assert numbers == list(range(size * accumulation))
    assert all(share.is_first == (share.number % accumulation == 0) for shares in parts for share in shares)


def test_a_last_batch_that_batchnorm_cannot_use_is_left_out() -> None:
    assert make(batch=36).steps == 1  # one image would be left
    assert make(batch=35).steps == 2
    assert make(batch=32, size=4).steps == 1  # five among four: one each
    assert make(batch=32, size=2).steps == 2


@pytest.mark.parametrize(("batch", "size", "accumulation"), [(9, 2, 1), (8, 3, 1), (4, 2, 2)])
def test_a_batch_that_cannot_be_parted_is_a_sentence(batch: int, size: int, accumulation: int) -> None:
    with pytest.raises(UsageError, match="can't be parted") as caught:
        make(batch, accumulation, 0, size)
    assert f"multiple of {size * accumulation}" in caught.value.hint


def test_without_augmentation_images_are_as_they_are() -> None:
    share = next(make(augmentation="none").shares(0, 0))
    assert torch.equal(share.batch.x, torch.from_numpy(split().images[share.index.numpy()]) / torch.tensor(255.0))


def test_errors_in_the_second_thread_reach_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    feeder = make()
    monkeypatch.setattr(Feeder, "_variants", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(feeder.shares(0, 0))


def test_the_teacher_is_asked_about_the_augmented_images() -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIDE * SIDE, 3))
    share = next(make(labels=SoftLabels(FrozenTeacher(network))).shares(0, 0))
    expected = network(share.batch.x.contiguous())
    assert share.batch.teacher_logits is not None
    torch.testing.assert_close(share.batch.teacher_logits, expected.half().float(), rtol=2e-3, atol=1e-5)
