"""The smallest perturbations, held to a linear model whose distances have a formula."""

from __future__ import annotations

import numpy as np
import pytest

from compressor.attack_report.norms import MinimalNorms, minimal_norms
from compressor.core.types import Norm

from .conftest import Linear


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_linear_models_distances_are_found(three_classes: Linear, norm: Norm) -> None:
    exact, found = three_classes.distances(norm), minimal_norms(three_classes.subject(), norm).distances
    assert np.array_equal(found == 0, exact == 0)
    assert (found >= exact * (1 - 1e-4)).all()  # an upper bound, whatever the search did
    # 60 images, none at random: the search itself steps a little beyond the boundary.
    assert np.median(found / np.maximum(exact, 1e-9)) <= 1.06


def test_the_median_and_the_distribution_count_what_was_not_found() -> None:
    norms = MinimalNorms("L2", np.array([0.3, 0.0, np.inf, 0.1, np.inf]))
    assert norms.median == 0.3
    assert MinimalNorms("L2", np.array([0.1, np.inf])).median == 0.1
    assert MinimalNorms("L2", np.array([0.1, np.inf, np.inf])).median == np.inf
    lengths, fractions = norms.cumulative()
    assert lengths.tolist() == [0.0, 0.1, 0.3]
    assert fractions.tolist() == [0.2, 0.4, 0.6]
