"""Which images come when: the same for any number of processes, each image once an epoch, prepared ahead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from compressor.core.contracts import Split
from compressor.core.errors import UsageError
from compressor.data.extra_data import ExtraData
from compressor.numerics.augment import apply_variants, choose_variants, permutation
from compressor.runs.recipe import Recipe
from compressor.system.process_group import ProcessGroup
from compressor.training.batches import BatchLoader, Share
from compressor.training.mixture import NO_LABEL, check_mixture
from compressor.training.plan import BatchPlan
from compressor.training.teaching.label_cache import LabelView, open_label_cache
from compressor.training.teaching.label_file import LabelKey
from compressor.training.teaching.soft_labels import NOT_CACHED, SoftLabels
from compressor.training.teaching.teacher import FrozenTeacher
from compressor.training.timing import Stopwatch

CPU = torch.device("cpu")
N, SIDE = 37, 16


def split() -> Split:
    images = np.random.default_rng(0).integers(0, 256, (N, 3, SIDE, SIDE), dtype=np.uint8)
    return Split(images, np.arange(N) % 3, origin=np.arange(N) * 2 + 1)


def make(
    batch: int = 8, accumulation: int = 1, rank: int = 0, size: int = 1, labels: SoftLabels | None = None,
    augmentation: str = "crop-flip", fraction: float = 0.0, extra: ExtraData | None = None,
) -> BatchLoader:  # fmt: skip
    recipe = Recipe.from_dict(
        {
            "method": "natural", "model": "wideresnet-10-1", "image_size": SIDE, "batch_size": batch,
            "accumulation": accumulation, "augmentation": augmentation, "seed": 3,
            "extra_fraction": fraction,
        }
    )  # fmt: skip
    return BatchLoader(recipe, split(), CPU, ProcessGroup(rank, size), labels, Stopwatch(CPU, profile=False), extra)


def test_an_epoch_shows_every_image_once_in_the_order_of_its_permutation() -> None:
    batch_loader = make()
    shares = list(batch_loader.shares(2, 0))
    assert torch.equal(torch.cat([share.index for share in shares]), torch.from_numpy(permutation(3, 2, N)))
    assert [share.step for share in shares] == list(range(batch_loader.plan.steps)) == [0, 1, 2, 3, 4]
    assert all(share.is_first and share.is_last for share in shares)
    assert batch_loader.plan.images_per_epoch == N


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
    assert make(batch=36).plan.steps == 1  # one image would be left
    assert make(batch=35).plan.steps == 2
    assert make(batch=32, size=4).plan.steps == 1  # five among four: one each
    assert make(batch=32, size=2).plan.steps == 2


@pytest.mark.parametrize(("batch", "size", "accumulation"), [(9, 2, 1), (8, 3, 1), (4, 2, 2)])
def test_a_batch_that_cannot_be_parted_is_a_sentence(batch: int, size: int, accumulation: int) -> None:
    with pytest.raises(UsageError, match="can't be parted") as caught:
        make(batch, accumulation, 0, size)
    assert f"multiple of {size * accumulation}" in caught.value.hint


def test_without_augmentation_images_are_as_they_are() -> None:
    share = next(make(augmentation="none").shares(0, 0))
    assert torch.equal(share.batch.x, torch.from_numpy(split().images[share.index.numpy()]) / torch.tensor(255.0))


def test_errors_in_the_second_thread_reach_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    batch_loader = make()
    monkeypatch.setattr(BatchPlan, "visit", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(batch_loader.shares(0, 0))


def test_the_teacher_is_asked_about_the_augmented_images() -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIDE * SIDE, 3))
    share = next(make(labels=SoftLabels(FrozenTeacher(network))).shares(0, 0))
    expected = network(share.batch.x.contiguous())
    assert share.batch.teacher_logits is not None
    torch.testing.assert_close(share.batch.teacher_logits, expected.half().float(), rtol=2e-3, atol=1e-5)


# ---- extra data

M, FRACTION = 500, 0.7


def generated(labelled: bool = True) -> ExtraData:
    """Each picture says which it is by its first two bytes; the third says that it is none of the real ones."""
    images = np.zeros((M, 3, SIDE, SIDE), dtype=np.uint8)
    images[:, 0] = (np.arange(M) // 256)[:, None, None]
    images[:, 1] = (np.arange(M) % 256)[:, None, None]
    return ExtraData(images, (np.arange(M) % 3).astype(np.uint8) if labelled else None, "0" * 64)


def mixed(**settings: object) -> BatchLoader:
    return make(**{"fraction": FRACTION, "extra": generated(), "augmentation": "none"} | settings)  # type: ignore[arg-type]


def real(share: Share) -> list[int]:
    return [i for i in share.index.tolist() if i != NOT_CACHED]


def drawn(share: Share) -> list[int]:
    """Which generated images a share shows, read off their pixels (without augmentation)."""
    pixels = (share.batch.x[share.index == NOT_CACHED, :2, 0, 0] * 255).round().long()
    return (pixels[:, 0] * 256 + pixels[:, 1]).tolist()


@pytest.mark.parametrize(("batch", "size", "accumulation"), [(8, 1, 1), (16, 2, 1), (16, 2, 2), (32, 1, 2)])
@pytest.mark.parametrize("fraction", [0.25, 0.5, 0.7, 0.9])
def test_every_share_has_the_same_mixture(batch: int, size: int, accumulation: int, fraction: float) -> None:
    loaders = [mixed(batch=batch, size=size, rank=r, accumulation=accumulation, fraction=fraction) for r in range(size)]
    assert loaders[0].plan.steps == make(batch, accumulation, 0, size).plan.steps, "an epoch keeps its steps"
    for share in (share for batch_loader in loaders for share in batch_loader.shares(0, 0)):
        in_all = len(share.index)
        assert in_all == loaders[0].plan.images_in(share.step) // (size * accumulation)
        assert len(drawn(share)) == min(round(fraction * in_all), in_all - 1)
        assert share.index.tolist() == real(share) + [NOT_CACHED] * len(drawn(share))


@pytest.mark.parametrize("accumulation", [1, 2])
def test_real_images_go_through_one_permutation_after_the_other(accumulation: int) -> None:
    batch_loader = mixed(batch=8 * accumulation, accumulation=accumulation)
    shown = [i for epoch in range(9) for share in batch_loader.shares(epoch, 0) for i in real(share)]
    laps = np.concatenate([permutation(3, lap, N) for lap in range(9)])
    assert len(shown) > 2 * N
    assert shown == laps[: len(shown)].tolist()


def test_a_lap_shows_real_images_as_an_epoch_without_extra_data_does() -> None:
    batch_loader, alone = mixed(augmentation="crop-flip"), make()
    shares = [share for epoch in range(9) for share in batch_loader.shares(epoch, 0)]
    x = torch.cat([share.batch.x[share.index != NOT_CACHED] for share in shares])
    y = torch.cat([share.batch.y[share.index != NOT_CACHED] for share in shares])
    expected = [share.batch for lap in range(9) for share in alone.shares(lap, 0)]
    assert torch.equal(x, torch.cat([batch.x for batch in expected])[: len(x)])
    assert torch.equal(y, torch.cat([batch.y for batch in expected])[: len(y)])


def test_extra_images_come_with_their_labels_or_with_none() -> None:
    for share in mixed().shares(0, 0):
        assert share.batch.y[share.index == NOT_CACHED].tolist() == [i % 3 for i in drawn(share)]
        assert share.batch.y[share.index != NOT_CACHED].tolist() == [i % 3 for i in real(share)]
    for share in mixed(extra=generated(labelled=False)).shares(0, 0):
        assert set(share.batch.y[share.index == NOT_CACHED].tolist()) == {NO_LABEL}


def test_extra_images_are_drawn_evenly_from_the_whole_set_and_anew_each_time() -> None:
    batch_loader = mixed(batch=32, fraction=0.9)
    epochs = [[i for share in batch_loader.shares(epoch, 0) for i in drawn(share)] for epoch in range(300)]
    counts = np.bincount(np.concatenate(epochs), minlength=M)
    assert len(counts) == M
    # A Poisson mean of about 20 is never 0; a chi-square over 499 degrees of freedom has a deviation of 32.
    assert counts.all()
    mean = counts.mean()
    assert abs(((counts - mean) ** 2 / mean).sum() - (M - 1)) < 5 * 32


def test_every_share_of_every_step_draws_for_itself() -> None:
    shares = [share for epoch in range(3) for share in mixed(batch=16, accumulation=2).shares(epoch, 0)]
    full = [tuple(drawn(share)) for share in shares if len(share.index) == 8]
    assert len(set(full)) == len(full) == 3 * 2 * 2
    variants = [tuple(share.variants.tolist()) for share in mixed(augmentation="crop-flip").shares(0, 0)]
    assert len({v[-6:] for v in variants}) == len(variants)


def test_extra_images_are_augmented_like_real_ones() -> None:
    share = next(mixed(augmentation="crop-flip", batch=32).shares(0, 0))
    rows = share.index == NOT_CACHED
    assert len(set(share.variants[rows].tolist())) > 10
    padded = share.batch.x[rows][:, :2].amax(dim=(2, 3)) * 255  # a crop of a plain picture: its colour, and black
    pictures = torch.stack([padded[:, 0], padded[:, 1], torch.zeros(len(padded))], 1).round().to(torch.uint8)
    plain = pictures[:, :, None, None].expand(-1, 3, SIDE, SIDE).contiguous()
    assert torch.equal(share.batch.x[rows], apply_variants(plain, share.variants[rows]))


@pytest.mark.parametrize("epoch", [0, 3])
def test_an_epoch_with_extra_data_can_be_entered_at_any_step(epoch: int) -> None:
    whole = list(mixed(augmentation="crop-flip").shares(epoch, 0))
    for step in range(len(whole)):
        rest = list(mixed(augmentation="crop-flip").shares(epoch, step))
        assert [torch.equal(a.batch.x, b.batch.x) for a, b in zip(whole[step:], rest, strict=True)] == [True] * len(
            rest
        )


def test_processes_and_passes_share_out_the_same_mixed_batches() -> None:
    shapes = [(1, 4), (2, 2), (4, 1)]  # four shares each
    batches = []
    for size, accumulation in shapes:
        parts = [list(mixed(batch=16, size=size, accumulation=accumulation, rank=r).shares(1, 0)) for r in range(size)]
        shares = sorted((share for part in parts for share in part), key=lambda share: (share.step, share.number))
        batches.append(torch.cat([share.batch.x for share in shares]))
    assert torch.equal(batches[0], batches[1])
    assert torch.equal(batches[0], batches[2])


class Recording(torch.nn.Module):
    """A teacher that remembers what it was asked about."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.asked.append(x.clone())
        return x[:, 1, 7, 6:9] * 2.0


def test_extra_images_never_touch_the_label_cache(tmp_path: Path) -> None:
    key = LabelKey("wrn", "ab" * 32, "none", "relu", "fp32", "noise", "cd" * 32, SIDE, 2 * N, 50, 3)
    cache = open_label_cache(key, limit=10**8, folder=tmp_path)
    assert cache is not None
    teacher = Recording()
    # A label cache that already holds an answer, a wrong one, for each real image.
    index, variant = (grid.ravel() for grid in np.meshgrid(np.arange(2 * N), np.arange(50), indexing="ij"))
    cache.write(index, variant, np.full((len(index), 3), 9, dtype=np.float16))
    labels = SoftLabels(FrozenTeacher(teacher), cache, LabelView.fresh(cache))
    before = cache.read(index, variant)
    batch_loader = mixed(augmentation="crop-flip", labels=labels)
    for share in batch_loader.shares(0, 0):
        rows, logits = share.index == NOT_CACHED, share.batch.teacher_logits
        assert logits is not None
        asked, extra = teacher.asked.pop(), share.batch.x[rows]
        assert torch.equal(asked[: len(extra)], extra)
        assert (asked[len(extra) :] == extra[-1]).all(), "about nothing else; a part of a batch is filled up"
        assert torch.equal(logits[rows], Recording()(extra).half().float())
        assert (logits[~rows] == 9).all()
    batch_loader.end_epoch(0)
    assert all(np.array_equal(a, b) for a, b in zip(before, cache.read(index, variant), strict=True))


def test_only_real_images_are_kept_in_the_label_cache(tmp_path: Path) -> None:
    key = LabelKey("wrn", "ab" * 32, "none", "relu", "fp32", "noise", "cd" * 32, SIDE, 2 * N, 50, 3)
    cache = open_label_cache(key, limit=10**8, folder=tmp_path)
    assert cache is not None
    view = LabelView.fresh(cache)
    batch_loader = mixed(augmentation="crop-flip", labels=SoftLabels(FrozenTeacher(Recording()), cache, view))
    for epoch in range(5):
        shown = {
            (int(split().origin[i]), v)
            for share in batch_loader.shares(epoch, 0)
            for i, v in zip(share.index.tolist(), share.variants.tolist(), strict=True)
            if i != NOT_CACHED
        }
        before = set(zip(*np.nonzero(view.known), strict=True))
        batch_loader.end_epoch(epoch)
        assert set(zip(*np.nonzero(view.known), strict=True)) == before | shown
        assert set(zip(*np.nonzero(cache.valid()), strict=True)) == before | shown


@pytest.mark.parametrize(
    ("fraction", "has_data", "says"),
    [(0.7, False, "no file is named"), (0.0, True, "is 0"), (0.05, True, "no room"), (0.95, True, "no room")],
)
def test_a_mixture_that_cannot_be_made_is_a_sentence(fraction: float, has_data: bool, says: str) -> None:
    recipe = Recipe("natural", "wideresnet-10-1", batch_size=16, extra_fraction=fraction)
    with pytest.raises(UsageError, match=says):
        check_mixture(recipe, 2, has_data=has_data)
    check_mixture(Recipe("natural", "wideresnet-10-1", batch_size=16, extra_fraction=0.5), 2, has_data=True)
    check_mixture(Recipe("natural", "wideresnet-10-1", batch_size=16), 2, has_data=False)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 1.5, float("nan")])
def test_a_fraction_is_from_0_to_below_1(fraction: float) -> None:
    with pytest.raises(UsageError, match="extra_fraction is"):
        Recipe("natural", "wideresnet-10-1", extra_fraction=fraction)


def test_a_warm_start_and_extra_data_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="warm start"):
        Recipe("sat", "wideresnet-10-1", extra_fraction=0.5, attack_warm_start=True)
