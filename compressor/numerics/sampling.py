"""Choices that any machine repeats: each is a hash of a key and a position, never the state of a generator."""

from __future__ import annotations

from typing import Any

import numpy as np

Indices = np.ndarray[Any, np.dtype[np.int64]]
Bits = np.ndarray[Any, np.dtype[np.uint64]]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def random_bits(key: int, positions: Indices) -> Bits:
    """64 uniform bits for each position of the stream ``key``.

    ``mix(key + (position + 1) * 0x9E3779B97F4A7C15)`` modulo 2^64, the output function of SplitMix64.

    Args:
        key: names the stream, such as ``derive_seed(seed, "augment", epoch)``; from 0 to 2^64 - 1.
        positions: any shape, each at least 0; equal positions have equal bits, whatever stands beside them.

    Returns:
        uint64 of the same shape.

    Source: Steele, Lea and Flood 2014, figure 17.
    """
    # Arrays, not scalars: NumPy warns when a scalar wraps around, and wrapping is what is meant.
    z = np.asarray(positions).astype(np.uint64).reshape(-1)
    z = (z + np.uint64(1)) * _GAMMA + np.uint64(key)
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return (z ^ (z >> np.uint64(31))).reshape(np.shape(positions))


def random_below(key: int, positions: Indices, bound: int) -> Indices:
    """A uniform integer in ``[0, bound)`` for each position; ``bound`` is at most 2^32.

    ``floor(high32(bits) * bound / 2^32)``: its bias is below ``bound / 2^32``, a part in 26 million for 162.
    """
    return ((random_bits(key, positions) >> np.uint64(32)) * np.uint64(bound) >> np.uint64(32)).astype(np.int64)


def random_order(key: int, n: int) -> Indices:
    """A uniform permutation of ``0 .. n - 1``: positions sorted by their random bits."""
    return np.argsort(random_bits(key, np.arange(n)), kind="stable").astype(np.int64)


def balanced_indices(labels: Indices, n: int, key: int) -> Indices:
    """Positions of ``n`` samples, as even over the classes as the classes allow.

    Each class is put in a random order, then the classes give one sample each in turn until there are ``n``. So class
    counts differ by one at most, unless a class runs out; and a smaller choice is part of every larger one.

    Args:
        labels: ``[N]``.
        n: how many; all where there are no more than ``n``.
        key: names the choice, such as ``derive_seed(seed, "validation")``.

    Returns:
        int64 ``[min(n, N)]``, ascending.
    """
    order = random_order(key, len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    turn = np.empty(len(labels), dtype=np.int64)
    _, first, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    turn[by_class] = np.arange(len(labels)) - np.repeat(first, counts)
    # Within a turn the random order decides which classes come first.
    chosen = order[np.argsort(turn[order], kind="stable")][:n]
    return np.sort(chosen)
