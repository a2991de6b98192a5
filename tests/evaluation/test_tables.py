"""Columns, stages and classes, counted by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from compressor.evaluation.tables import (
    cascade_successes,
    class_table,
    confusion_counts,
    stage_counts,
    unique_successes,
    worst_case_predictions,
)


def bits(text: str) -> np.ndarray:
    return np.array([letter == "1" for letter in text])


CLEAN = bits("0111111")
ATTACKS = {"A": bits("0011110"), "B": bits("0001110"), "C": bits("0111011")}


def test_what_a_column_broke_that_no_other_did() -> None:
    # Image 1: A and B; image 2: B; image 4: C; image 6: A and B; image 0 was wrong before.
    assert unique_successes(CLEAN, ATTACKS) == {"A": 0, "B": 1, "C": 1}
    assert unique_successes(CLEAN, {}) == {}


def test_in_a_cascade_each_image_is_counted_once() -> None:
    cumulative = {"A": bits("0011110"), "B": bits("0001110"), "C": bits("0001010")}
    assert cascade_successes(CLEAN, cumulative) == {"A": 2, "B": 1, "C": 1}


def test_stages_are_counted_by_number() -> None:
    assert stage_counts(("apgd-ce", "fab-t", "square"), np.array([-1, 0, 0, 2, -1])) == {
        "apgd-ce": 2,
        "fab-t": 0,
        "square": 1,
    }


def test_the_first_column_that_breaks_an_image_says_what_the_model_says() -> None:
    predictions = {
        "clean": np.array([9, 1, 1, 1, 1, 1, 1]),
        "A": np.array([9, 2, 1, 1, 1, 1, -1]),
        "B": np.array([9, 3, 3, 1, 1, 1, 3]),
        "C": np.array([9, 1, 1, 1, 4, 1, 1]),
    }
    assert worst_case_predictions(CLEAN, ATTACKS, predictions).tolist() == [9, 2, 3, 1, 4, 1, -1]
    assert predictions["clean"].tolist() == [9, 1, 1, 1, 1, 1, 1], "what it was given is not changed"


def test_classes_and_their_confusion() -> None:
    labels, said = np.array([0, 0, 2, 2, 2]), np.array([0, 2, 2, 1, -1])
    assert class_table(labels, bits("11101"), bits("10100")) == [
        {"class": 0, "images": 2, "clean_correct": 2, "robust": 1},
        {"class": 2, "images": 3, "clean_correct": 2, "robust": 1},
    ]
    assert confusion_counts(labels, said) == {"0": {"0": 1, "2": 1}, "2": {"2": 1, "1": 1, "-1": 1}}


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.booleans(), st.integers(-1, 4)), min_size=1))
def test_every_image_is_in_the_tables_once(images: list[tuple[int, bool, bool, int]]) -> None:
    labels, clean, stands, said = (np.array(column) for column in zip(*images, strict=True))
    table = class_table(labels, clean, clean & stands)
    assert sum(row["images"] for row in table) == len(images)
    assert sum(row["clean_correct"] for row in table) == clean.sum()
    assert sum(row["robust"] for row in table) == (clean & stands).sum()
    assert sum(count for row in confusion_counts(labels, said).values() for count in row.values()) == len(images)
