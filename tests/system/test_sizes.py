from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressor.core.errors import UsageError
from compressor.system.sizes import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("7B", 7),
        ("500MB", 500_000_000),
        ("8GB", 8_000_000_000),
        ("8gb", 8_000_000_000),
        (" 1.5 GB ", 1_500_000_000),
        ("2kB", 2000),
        ("2KB", 2000),
        ("3TB", 3 * 10**12),
        ("0.3GB", 300_000_000),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "GB", "-1", "-1GB", "1e9", "nan", "inf", "8GiB", "8G", "1,5GB", "1.GB", ".5GB", "8 G B", "9" * 5000, "٣"],
)
def test_what_is_not_a_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_940, "999.9 kB"),
        (999_960, "1.0 MB"),
        (162_000_000, "162.0 MB"),
        (8 * 10**9, "8.0 GB"),
        (5 * 10**15, "5000.0 TB"),
    ],
)
def test_sizes_are_shown(size: int, text: str) -> None:
    assert format_size(size) == text


@given(st.integers(min_value=0, max_value=10**15))
def test_what_is_shown_can_be_read_and_is_near(size: int) -> None:
    assert abs(parse_size(format_size(size)) - size) <= 0.05 * size


@given(st.integers(min_value=0, max_value=10**15 - 1))
def test_a_number_alone_is_exact(size: int) -> None:
    assert parse_size(str(size)) == size
