"""The figures that people decide by: each in ``docs/green-verdict.md`` is what the code computes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cli.command_table import load_command
from compressor.numerics.statistics import binomial_tail, clopper_pearson
from exporters.verification.decision import is_refuted, is_refuted_by_other_images
from exporters.verification.policies import CONFIDENCE

PAGE = (Path(__file__).parents[1] / "docs" / "green-verdict.md").read_text(encoding="utf-8")


def table(first_heading: str, number: int) -> tuple[list[str], list[list[str]]]:
    """The headings and the rows of the page's ``number``-th table that begins so."""
    lines = PAGE.splitlines()
    start = [i for i, line in enumerate(lines) if line.startswith(f"| {first_heading} |")][number]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:]]
    end = next((i for i, row in enumerate(rows) if row == [""]), len(rows))
    return rows[0], rows[2:end]


def test_the_intervals() -> None:
    _, rows = table("images", 0)
    assert len(rows) == 5
    for images, robust, accuracy, interval in rows:
        n, k = int(images), int(robust)
        low, high = clopper_pearson(k, n)
        assert accuracy == f"{100 * k / n:.1f} %"
        assert interval == f"{100 * low:.1f} to {100 * high:.1f} %"


def test_how_many_must_stand() -> None:
    headings, rows = table("images", 1)
    for images, *counts in rows:
        for heading, count in zip(headings[1:], map(int, counts), strict=True):
            threshold, n = float(heading.removeprefix("T = ")), int(images)
            assert clopper_pearson(count, n, CONFIDENCE, "lower")[0] >= threshold
            assert clopper_pearson(count - 1, n, CONFIDENCE, "lower")[0] < threshold


def test_how_often_a_claim_is_found_out() -> None:
    headings, rows = table("m", 0)
    for attacked, broken, *chances in rows:
        m, b = int(attacked), int(broken)
        assert is_refuted(b, m)
        assert not is_refuted(b - 1, m)
        for heading, chance in zip(headings[2:], chances, strict=True):
            q = float(heading.removeprefix("q = ").removesuffix(" %")) / 100
            assert chance == f"{100 * binomial_tail(b, m, q):.0f} %"


def test_what_other_data_refute() -> None:
    (found,) = re.findall(r"half of (\d+) claimed and (\d+) of (\d+)", " ".join(PAGE.split()))
    claimed, robust, new = map(int, found)
    assert is_refuted_by_other_images(robust, new, claimed // 2, claimed)
    assert not is_refuted_by_other_images(robust + 1, new, claimed // 2, claimed)


@pytest.mark.parametrize("option", sorted(set(re.findall(r"--[a-z][a-z-]+", PAGE))))
def test_every_option_it_names_exists(option: str) -> None:
    commands = (load_command(name) for name in ("verify", "export"))
    assert option in {name for command in commands for one in command.params for name in one.opts}
