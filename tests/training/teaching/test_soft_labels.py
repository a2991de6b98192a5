"""The teacher is asked once: hits give the bits of misses, and a run counts only on what it can count on again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.training.teaching.label_cache import LabelCache, LabelView, open_label_cache
from compressor.training.teaching.label_file import LabelKey
from compressor.training.teaching.soft_labels import SoftLabels
from compressor.training.teaching.teacher import FrozenTeacher

N, V, K = 20, 6, 4
KEY = LabelKey("wrn", "ab" * 32, "none", "relu", "fp32", "noise", "cd" * 32, 8, N, V, K)


class Counting(nn.Module):
    """Logits that depend on the image alone, to the bit; remembers how many images it was asked about."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        return x.flatten(1)[:, :K] * 3.14159


@pytest.fixture
def cache(tmp_path: Path) -> LabelCache:
    opened = open_label_cache(KEY, limit=10**6, folder=tmp_path)
    assert opened is not None
    return opened


def images(n: int) -> Tensor:
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def ask(labels: SoftLabels, x: Tensor, index: np.ndarray, variants: np.ndarray) -> Tensor:
    return labels.answer(x, index, variants, labels.look_up(index, variants))


def test_hits_give_the_bits_of_misses_and_of_no_cache(cache: LabelCache) -> None:
    teacher = Counting()
    x, index, variants = images(8), np.arange(8), np.arange(8) % V
    labels = SoftLabels(FrozenTeacher(teacher), cache, LabelView.fresh(cache))
    missed = ask(labels, x, index, variants)
    assert teacher.asked == 8
    labels.end_epoch(index, variants)
    hit = ask(labels, x, index, variants)
    assert teacher.asked == 8
    assert (labels.asked, labels.answered) == (16, 8)
    uncached = ask(SoftLabels(FrozenTeacher(teacher)), x, index, variants)
    assert torch.equal(hit, missed)
    assert torch.equal(hit, uncached)
    assert hit.dtype == torch.float32
    torch.testing.assert_close(hit, x.flatten(1)[:, :K] * 3.14159, rtol=1e-3, atol=1e-4)


def test_only_the_missing_are_asked_about(cache: LabelCache) -> None:
    teacher = Counting()
    labels = SoftLabels(FrozenTeacher(teacher), cache, LabelView.fresh(cache))
    x, index, variants = images(16), np.arange(16), np.zeros(16, dtype=np.int64)
    ask(labels, x[:8], index[:8], variants[:8])
    labels.end_epoch(index[:8], variants[:8])
    teacher.asked = 0
    mixed = ask(labels, x, index, variants)
    assert teacher.asked == 8
    assert torch.equal(mixed, ask(SoftLabels(FrozenTeacher(Counting())), x, index, variants))


def test_what_another_run_wrote_meanwhile_does_not_count(cache: LabelCache) -> None:
    x, index, variants = images(8), np.arange(8), np.zeros(8, dtype=np.int64)
    mine = SoftLabels(FrozenTeacher(Counting()), cache, LabelView.fresh(cache))
    other = Counting()
    ask(SoftLabels(FrozenTeacher(other), cache, LabelView.fresh(cache)), x, index, variants)
    found = mine.look_up(index, variants)
    assert found is not None
    assert not found.known.any()
    later = SoftLabels(FrozenTeacher(Counting()), cache, LabelView.fresh(cache)).look_up(index, variants)
    assert later is not None
    assert later.known.all()


def test_a_view_that_counts_on_a_lost_answer_asks_again(cache: LabelCache) -> None:
    teacher = Counting()
    everything = LabelView(np.ones((N, V), dtype=np.bool_))
    x, index, variants = images(8), np.arange(8), np.zeros(8, dtype=np.int64)
    answered = ask(SoftLabels(FrozenTeacher(teacher), cache, everything), x, index, variants)
    assert teacher.asked == 8
    assert torch.isfinite(answered).all()


def test_its_state_is_its_view(cache: LabelCache) -> None:
    view = LabelView.fresh(cache)
    view.add(np.array([3, 5]), np.array([0, 2]))
    packed = SoftLabels(FrozenTeacher(Counting()), cache, view).state()
    assert packed is not None
    restored = LabelView.unpack(packed.numpy().tobytes(), (N, V))
    assert np.array_equal(restored.known, view.known)
    assert SoftLabels(FrozenTeacher(Counting())).state() is None
