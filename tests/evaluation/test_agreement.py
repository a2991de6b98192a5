from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from compressor.evaluation.agreement import ReferenceAgreement, compare_with_reference


def test_it_counts_image_by_image() -> None:
    ours = np.array([1, 1, 0, 0, 1, 0], dtype=bool)
    reference = np.array([1, 0, 1, 0, 0, 1], dtype=bool)
    found = compare_with_reference(ours, reference)
    assert (found.images, found.broken_only_by_ours, found.broken_only_by_reference, found.disagreements) == (
        6,
        2,
        2,
        4,
    )
    assert found.excess == 0


@pytest.mark.parametrize(("ours", "reference"), [(0, 0), (1, 0), (3, 9), (20, 2), (0, 8)])
def test_the_p_value_is_that_of_a_fair_coin(ours: int, reference: int) -> None:
    total = ours + reference
    expected = binomtest(ours, total).pvalue if total else 1.0
    assert ReferenceAgreement(1000, ours, reference).p_value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("images", "ours", "reference", "holds"),
    [
        (1000, 0, 0, True),
        (1000, 0, 5, True),
        (1000, 0, 6, False),  # 0.6 points above the reference
        (10_000, 20, 45, False),  # within half a point, and too uneven for chance
        (1000, 12, 1, False),  # ours is the stronger, beyond chance: it may not stand for the reference either
        (256, 3, 4, True),
    ],
)
def test_it_holds_within_half_a_point_and_within_chance(images: int, ours: int, reference: int, holds: bool) -> None:
    found = ReferenceAgreement(images, ours, reference)
    assert found.holds is holds
    assert found.to_json()["holds"] is holds


def test_other_images_are_no_comparison() -> None:
    with pytest.raises(ValueError, match="same images"):
        compare_with_reference(np.ones(3, dtype=bool), np.ones(4, dtype=bool))
