"""Settings that exclude each other are refused in a plain sentence, whoever asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressor.core.errors import UsageError
from compressor.runs.recipe import resolve


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("natural", {"awp_gamma": 0.005}, "AWP perturbs weights against an attack, and the method natural makes none"),
        ("kd", {"awp_gamma": 0.005}, "the method kd makes none"),
        ("sat", {"nesterov": True, "momentum": 0.0}, "momentum is 0"),
        ("natural", {"attack_warm_start": True}, "no attack to start warm: the method natural makes none"),
        ("rslad", {"label_smoothing": 0.1}, "nothing to smooth: no term of the method rslad"),
        ("sat", {"ema_decay": 0.9}, "--ema-decay has no effect: weight_average is none"),
        ("sat", {"ema_decay": 0.9, "weight_average": "swa"}, "weight_average is swa"),
    ],
)
def test_what_makes_no_sense_together_is_refused(method: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        resolve(method, "mobilenetv2", None, settings)
    assert caught.value.exit_code == 2
    assert caught.value.hint


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("sat", {"awp_gamma": 0.005, "label_smoothing": 0.1, "weight_average": "ema", "ema_decay": 0.9}),
        ("rslad", {"awp_gamma": 0.005, "weight_average": "swa", "attack_warm_start": True}),
        ("natural", {"label_smoothing": 0.1, "awp_gamma": 0.0}),
    ],
)
def test_what_makes_sense_is_not(method: str, settings: dict[str, object]) -> None:
    assert resolve(method, "mobilenetv2", None, settings).method == method


def test_a_file_may_hold_what_a_flag_makes_idle(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text('weight_average = "ema"\nema_decay = 0.9\n')
    assert resolve("sat", "mobilenetv2", file, {"weight_average": "none"}).ema_decay == 0.9
