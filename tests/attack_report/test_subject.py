"""The sample that a report's figures are drawn from."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from compressor.frozen import Surrogate

from .conftest import Linear


def test_the_sample_is_balanced_drawn_by_seed_and_part_of_a_larger_one(three_classes: Linear) -> None:
    subject = three_classes.subject(samples=12)
    counts = np.bincount(subject.y.numpy(), minlength=3)
    assert counts.max() - counts.min() <= 1
    assert np.array_equal(three_classes.labels[subject.positions], subject.y.numpy())
    assert torch.equal(subject.x, three_classes.subject().x[torch.from_numpy(subject.positions)])
    assert np.array_equal(three_classes.subject(samples=12).positions, subject.positions)
    assert not np.array_equal(three_classes.subject(samples=12, seed=1).positions, subject.positions)
    assert set(subject.positions) <= set(three_classes.subject(samples=20).positions)


def test_batches_are_the_whole_sample_with_progress_and_noise_of_their_own(three_classes: Linear) -> None:
    told: list[tuple[str, int, int]] = []
    subject = three_classes.subject(batch_size=25)
    object.__setattr__(subject, "on_progress", lambda *what: told.append(what))
    pieces = list(subject.batches("part", "Linf"))
    assert torch.equal(torch.cat([x for x, _, _ in pieces]), subject.x)
    assert torch.equal(torch.cat([y for _, y, _ in pieces]), subject.y)
    assert told == [("part", 0, 60), ("part", 25, 60), ("part", 50, 60), ("part", 60, 60)]
    draws = {float(torch.rand(1, generator=generator)) for _, _, generator in pieces}
    draws |= {float(torch.rand(1, generator=generator)) for _, _, generator in subject.batches("part", "L2")}
    assert len(draws) == 6


def test_a_surrogate_that_is_given_is_attacked_and_the_model_decides(three_classes: Linear) -> None:
    given = Surrogate(three_classes.model, three_classes.model, 0.0)
    shown: list[int] = []

    def surrogate(x: Tensor) -> Surrogate:
        shown.append(len(x))
        return given

    subject = three_classes.subject(surrogate=surrogate)
    assert subject.attacked is given
    assert subject.model is three_classes.model
    assert shown == [8]
