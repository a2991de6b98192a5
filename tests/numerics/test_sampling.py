from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressor.numerics.sampling import balanced_indices, random_below, random_bits, random_order


def splitmix64(state: int) -> int:
    """The generator's output function in plain integers."""
    mask = (1 << 64) - 1
    z = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & mask
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
    return z ^ (z >> 31)


@given(key=st.integers(0, (1 << 64) - 1), position=st.integers(0, 1 << 62))
def test_bits_are_splitmix64_at_a_position(key: int, position: int) -> None:
    state = (key + (position + 1) * 0x9E3779B97F4A7C15) % (1 << 64)
    assert int(random_bits(key, np.array([position]))[0]) == splitmix64(state)


def test_the_published_first_values_of_the_generator() -> None:
    # SplitMix64 seeded with 1234567, as its reference implementation prints it.
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert random_bits(1234567, np.arange(5)).tolist() == expected


@given(bits=st.integers(0, 1 << 40), bound=st.integers(1, 1 << 32))
def test_below_scales_the_high_half(bits: int, bound: int) -> None:
    value = int(random_below(7, np.array([bits]), bound)[0])
    assert value == (int(random_bits(7, np.array([bits]))[0]) >> 32) * bound >> 32
    assert 0 <= value < bound


def test_order_is_a_permutation() -> None:
    assert sorted(random_order(1, 257)) == list(range(257))


labels = st.lists(st.integers(0, 5), min_size=0, max_size=60).map(lambda values: np.array(values, dtype=np.int64))


@given(labels=labels, n=st.integers(0, 70), key=st.integers(0, 100))
def test_balanced(labels: np.ndarray, n: int, key: int) -> None:
    chosen = balanced_indices(labels, n, key)
    assert len(chosen) == min(n, len(labels))
    assert np.all(np.diff(chosen) > 0)
    have = np.bincount(labels, minlength=6)
    counts = np.bincount(labels[chosen], minlength=6)
    # A class has fewer than the fullest one, by more than one, only where it has run out.
    assert np.all((counts >= counts.max() - 1) | (counts == have))


@given(labels=labels, n=st.integers(0, 60), more=st.integers(0, 10), key=st.integers(0, 100))
def test_a_smaller_choice_is_part_of_a_larger_one(labels: np.ndarray, n: int, more: int, key: int) -> None:
    assert set(balanced_indices(labels, n, key)) <= set(balanced_indices(labels, n + more, key))


@pytest.mark.parametrize("n", [10, 15])
def test_each_sample_is_as_likely_as_the_next(n: int) -> None:
    labels = np.repeat(np.arange(5), 8)
    times = np.bincount(np.concatenate([balanced_indices(labels, n, key) for key in range(2000)]), minlength=40)
    expected = 2000 * n / 40
    assert np.abs(times - expected).max() < 4.5 * np.sqrt(expected * (1 - n / 40))
