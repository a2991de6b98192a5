"""Class by class, from bits and predictions that are known."""

from __future__ import annotations

import numpy as np

from compressor.attack_report.classes import ClassOutcome, class_outcomes, worst_case_confusion

from .conftest import make_report


def test_every_class_has_its_own_counts_also_one_without_images() -> None:
    assert class_outcomes(make_report(), ["a", "b", "c", "d"]) == (
        ClassOutcome("a", 2, 1, 0),
        ClassOutcome("b", 2, 2, 0),
        ClassOutcome("c", 2, 2, 2),
        ClassOutcome("d", 0, 0, 0),
    )


def test_the_worst_case_is_what_the_first_attack_that_broke_it_made_it_say() -> None:
    found = worst_case_confusion(make_report(), 3)
    assert found is not None
    # Image 0 was wrong unattacked (2); A made 1 a 1 and 2 a 0; B made 3 a 2.
    assert found.counts.tolist() == [[0, 1, 1], [1, 0, 1], [0, 0, 2]]
    assert found.unknown == 0
    assert np.trace(found.counts) == make_report().robust.sum()


def test_answers_that_are_none_are_in_no_cell() -> None:
    predictions = {**make_report().predictions, "A": np.array([2, -1, 0, 1, 2, 2])}
    found = worst_case_confusion(make_report(predictions=predictions), 3)
    assert found is not None
    assert (found.unknown, found.counts.sum()) == (1, 5)
    assert worst_case_confusion(make_report(predictions={}), 3) is None
