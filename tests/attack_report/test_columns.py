"""What each attack found, from bits that are known."""

from __future__ import annotations

import numpy as np

from compressor.attack_report.columns import column_outcomes

from .conftest import make_report


def test_what_no_other_attack_broke_is_counted() -> None:
    a, b = column_outcomes(make_report())
    assert (a.name, a.correct, a.n, a.broken, a.unique_successes) == ("A", 3, 6, 2, 1)
    assert (b.name, b.correct, b.n, b.broken, b.unique_successes) == ("B", 3, 6, 2, 1)
    assert a.accuracy == 0.5


def test_stages_share_out_what_their_attack_broke() -> None:
    broken_by = {"A": (("first", "second"), np.array([-1, 0, 1, -1, -1, -1]))}
    a, first, second, b = column_outcomes(make_report(broken_by=broken_by))
    assert [(c.name, c.stage) for c in (a, first, second, b)] == [
        ("A", None),
        ("A", "first"),
        ("A", "second"),
        ("B", None),
    ]
    assert (first.broken, first.correct) == (1, 4)
    assert (second.broken, second.correct) == (1, 3)
    assert first.unique_successes is second.unique_successes is None
    assert second.correct == a.correct


def test_in_a_cascade_an_attack_has_what_was_left() -> None:
    bits = {"A": np.array([0, 0, 0, 1, 1, 1], dtype=bool), "B": np.array([0, 0, 0, 0, 1, 1], dtype=bool)}
    a, b = column_outcomes(make_report(mode="cascade", attacks=bits))
    assert (a.broken, a.correct, a.unique_successes) == (2, 3, None)
    assert (b.broken, b.correct, b.unique_successes) == (1, 2, None)


def test_an_attack_without_others_is_not_compared() -> None:
    (only,) = column_outcomes(make_report(attacks={"A": make_report().attacks["A"]}))
    assert (only.broken, only.unique_successes) == (2, None)
