"""eps as text: what is read, what is refused, and what it is worth."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressor.core.errors import UsageError
from compressor.core.types import DatasetSpec, Threat, parse_eps


@given(st.integers(1, 255))
def test_fractions_of_255_are_exact(levels: int) -> None:
    assert parse_eps(f"{levels}/255") == Fraction(levels, 255)
    assert Threat("Linf", f"{levels}/255").radius == levels / 255


NONSENSE = [
    *("8/0", "", "x", "0", "0/255", "-8/255", "1.5", "256/255", "nan", "inf", "1e-3", "1e-999999999"),
    *("\u0663/255", "8 / 255", "8/255 ", "0." + "1" * 40),
]


@pytest.mark.parametrize("text", NONSENSE)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="eps"):
        Threat("Linf", text)


def test_an_l2_ball_may_be_larger_than_the_pixel_range() -> None:
    assert Threat("L2", "1.5").radius == 1.5
    with pytest.raises(UsageError, match="norm"):
        Threat("L1", "1")  # type: ignore[arg-type]


def test_a_dataset_spec_splits_at_the_first_colon() -> None:
    assert DatasetSpec.parse("imagefolder:C:/pictures") == DatasetSpec("imagefolder", "C:/pictures")
    assert str(DatasetSpec.parse("cifar10")) == "cifar10"
