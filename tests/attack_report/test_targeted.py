"""Attempts at chosen classes: which are made, and which must succeed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressor.attack_report.targeted import Targeted, choose_attempts, targeted_successes
from compressor.core.types import Threat

from .conftest import Linear


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(1, 100), st.integers(0, 1000))
def test_attempts_are_distinct_even_and_never_at_the_right_class(labels: list[int], most: int, key: int) -> None:
    given_labels = np.array(labels)
    images, targets = choose_attempts(given_labels, 6, most, key)
    assert len(images) == min(most, 5 * len(labels))
    assert len({*zip(images.tolist(), targets.tolist(), strict=True)}) == len(images)
    assert (given_labels[images] != targets).all()
    counts = np.zeros((6, 6), dtype=int)
    np.add.at(counts, (given_labels[images], targets), 1)
    available = np.bincount(given_labels, minlength=6)[:, None]
    # A pair has fewer attempts than another only where its class has no further image, or the last turn was cut off.
    short = (counts < counts.max() - 1) & (available > 0) & ~np.eye(6, dtype=bool)
    assert (counts[short] == np.broadcast_to(available, (6, 6))[short]).all()


def test_of_two_classes_the_other_is_said_wherever_an_error_is_near_enough(two_classes: Linear) -> None:
    threat = Threat("Linf", "5/255")
    found = targeted_successes(two_classes.subject(), threat)
    within = two_classes.distances("Linf") < threat.radius
    assert found.attempts.tolist() == [
        [0, (two_classes.labels == 0).sum()], [(two_classes.labels == 1).sum(), 0]
    ]  # fmt: skip
    assert found.successes[0, 1] == within[two_classes.labels == 0].sum()
    assert found.successes[1, 0] == within[two_classes.labels == 1].sum()
    assert 0 < found.rate < 1


def test_the_model_is_left_as_it_was(two_classes: Linear) -> None:
    two_classes.model.train()
    targeted_successes(two_classes.subject(), Threat("Linf", "1/255"))
    assert two_classes.model.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in two_classes.model.parameters())
    two_classes.model.eval()


def test_no_attempt_has_no_success() -> None:
    nothing = np.zeros((2, 2), dtype=np.int64)
    assert Targeted(nothing, nothing).rate == pytest.approx(0)
