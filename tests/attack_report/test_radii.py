"""Radii as text that a threat takes, in rising order, and as an axis shows them."""

from __future__ import annotations

import itertools

import pytest

from compressor.attack_report.radii import axis_label, default_radii, format_length, parse_radii, radius_value
from compressor.core.errors import UsageError
from compressor.core.types import Threat


def test_the_threats_own_norm_has_multiples_of_its_radius() -> None:
    assert default_radii(Threat("Linf", "8/255"), "Linf", 3072) == (
        "0", "2/255", "4/255", "8/255", "16/255", "32/255",
    )  # fmt: skip
    assert default_radii(Threat("L2", "0.5"), "L2", 3072) == ("0", "0.125", "0.25", "0.5", "1", "2")
    assert default_radii(Threat("Linf", "0.03"), "Linf", 3072)[1:4] == ("0.0075", "0.015", "0.03")


@pytest.mark.parametrize("eps", ["8/255", "0.1", "0.031", "0.5", "1", "1/3", "0.123456789012345"])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_every_default_radius_is_one_that_a_threat_takes(eps: str, norm: str) -> None:
    threat = Threat(norm, eps)  # type: ignore[arg-type]
    for of in ("Linf", "L2"):
        radii = default_radii(threat, of, 3072)  # type: ignore[arg-type]
        values = [0.0, *(Threat(of, radius).radius for radius in radii[1:])]  # type: ignore[arg-type]
        assert radii[0] == "0"
        assert all(a < b for a, b in itertools.pairwise(values))
        assert values == [radius_value(radius) for radius in radii]
        if of == norm:
            assert any(value == pytest.approx(threat.radius, rel=1e-9) for value in values)


def test_a_larger_image_has_larger_l2_radii() -> None:
    small, large = (default_radii(Threat(), "L2", 3 * side**2) for side in (32, 224))
    assert small == ("0", "0.125", "0.25", "0.5", "1", "2")
    assert [radius_value(b) / radius_value(a) for a, b in zip(small[1:], large[1:], strict=True)] == pytest.approx(
        [7.0] * 5, rel=1e-3
    )


def test_curve_radii_are_sorted_and_each_there_once() -> None:
    assert parse_radii("8/255, 0,2/255,16/510", "Linf") == ("0", "2/255", "8/255")
    assert parse_radii("3,0.5", "L2") == ("0.5", "3")


@pytest.mark.parametrize("text", ["", "0", "0,x", "2/255,,4/255", "-1/255", "2"])
def test_what_is_no_radius_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_radii(text, "Linf")


def test_radii_are_shown_in_the_units_of_their_norm() -> None:
    assert axis_label(8 / 255, "Linf") == "8"
    assert axis_label(0.125, "L2") == "0.125"
    assert format_length(7.314 / 255, "Linf") == "7.31/255"
    assert format_length(float("inf"), "L2") == "beyond what was found"
