"""The recipe: precedence, types, and the published file."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compressor.core.errors import MissingInputError, UnknownNameError, UsageError
from compressor.core.registry import METHODS
from compressor.methods._terms import reduce_kl
from compressor.runs.recipe import Recipe, foreign_settings, resolve
from compressor.runs.recipe_files import read_recipe_file, to_toml

RECIPES = Path(__file__).parents[2] / "recipes"


def test_precedence_is_default_then_method_then_file_then_flag(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text("epochs = 7\nlearning_rate = 0.05\n[method_settings]\nalpha = 0.5\n")
    recipe = resolve("rslad", "mobilenetv2", file, {"epochs": 3, "seed": None})
    assert recipe.epochs == 3  # flag
    assert recipe.learning_rate == 0.05  # file
    assert recipe.attack_start == "gaussian"  # the method's default
    assert recipe.momentum == 0.9  # default
    assert recipe.seed == 0  # a flag that was not given is none
    assert recipe.build_method().alpha == 0.5  # type: ignore[attr-defined]


def test_flags_win_over_the_file_for_method_and_model_too(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text('method = "sat"\nmodel = "resnet18"\n')
    from_file = resolve("rslad", "mobilenetv2", file, {"method": None, "model": None})
    assert (from_file.method, from_file.model, from_file.attack_start) == ("sat", "resnet18", "uniform")
    flagged = resolve("rslad", "mobilenetv2", file, {"method": "natural", "model": "wideresnet-10-1"})
    assert (flagged.method, flagged.model) == ("natural", "wideresnet-10-1")


def test_a_runs_own_recipe_serves_as_one(tmp_path: Path) -> None:
    recipe = resolve("rslad", "mobilenetv2-0.25", None, {"epochs": 7})
    file = tmp_path / "recipe.toml"
    file.write_text(to_toml({**recipe.to_dict(), "inputs": {"train_sha256": "ab"}}))
    assert resolve("sat", "resnet18", file, {}) == recipe


def test_methods_bring_their_own_start() -> None:
    assert resolve("sat", "resnet18", None, {}).attack_start == "uniform"


def test_the_published_recipe_is_the_default_of_rslad() -> None:
    from_file = resolve("natural", "mobilenetv2", RECIPES / "rslad-cifar10.toml", {})
    default = resolve("rslad", "mobilenetv2", None, {})
    assert from_file.build_method() == default.build_method()
    assert from_file.to_dict() | {"method_settings": {}} == default.to_dict()


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_that_comes_along_resolves(path: Path) -> None:
    assert path.read_text().startswith("# "), "the first line is the summary that `compress list recipes` shows"
    resolve("rslad", "mobilenetv2", path, {})


def test_a_recipe_of_one_method_does_not_lend_its_settings_to_another() -> None:
    """RSLAD's alpha would pass for AdaAD's; what is left of the file is announced."""
    file = RECIPES / "rslad-cifar10.toml"
    adaad = resolve("rslad", "resnet18", file, {"method": "adaad"})
    assert adaad.build_method() == METHODS.get("adaad")()
    assert adaad.weight_decay == 2e-4, "the file's, as it says"
    said = foreign_settings(file, adaad)
    assert said is not None
    assert "is a recipe of rslad: with adaad its method settings are left out" in said
    for fitting, method in ((file, "rslad"), (RECIPES / "miniature.toml", "adaad"), (None, "sat")):
        assert foreign_settings(fitting, resolve(method, "resnet18", fitting, {"method": method})) is None


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
@pytest.mark.parametrize("method", ["natural", "kd", "sat", "trades", "mart", "ard", "iad", "rslad", "adaad", "igdm"])
def test_every_published_method_has_its_recipe_and_every_line_a_source(method: str, dataset: str) -> None:
    path = RECIPES / f"{method}-{dataset}.toml"
    recipe = resolve("rslad", "resnet18", path, {})
    assert recipe.method == method
    settings = [line for line in path.read_text().splitlines() if " = " in line and not line.startswith("#")]
    ours = ("validation_samples", "selection_steps")
    assert all("# " in line or line.startswith(ours) for line in settings), "where does the value come from?"
    assert set(tomllib.loads(path.read_text())["method_settings"] if recipe.method_settings else ()) == {
        field.name for field in dataclasses.fields(METHODS.get(method))
    }


def test_the_scale_of_kl_on_100_classes_is_that_of_the_released_scripts() -> None:
    """Per-image KL in nats, to what is minimised: a tenth for RSLAD, all of it for AdaAD and IGDM, 1/100 for ARD."""
    reductions = {
        method: resolve(method, "resnet18", RECIPES / f"{method}-cifar100.toml", {}).method_settings["reduction"]
        for method in ("rslad", "adaad", "igdm", "ard")
    }
    per_image = torch.ones(4)
    scale = {method: float(reduce_kl(per_image, name, classes=100)) for method, name in reductions.items()}
    assert scale == pytest.approx({"rslad": 0.1, "adaad": 1.0, "igdm": 1.0, "ard": 0.01})


@pytest.mark.parametrize(
    ("field", "value", "near"),
    [("schedule", "cosin", "cosine"), ("schedule", "onecycle", "one-cycle"), ("weight_average", "EMA", "ema")],
)
def test_near_misses_of_choices_are_suggested(field: str, value: str, near: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve("sat", "resnet18", None, {field: value})
    assert caught.value.hint.startswith(f"Did you mean {near}? Use one of: ")


def test_toml_round_trip(tmp_path: Path) -> None:
    recipe = resolve("rslad", "mobilenetv2-0.25", None, {"method_settings": {"alpha": 0.25}})
    assert Recipe.from_dict(tomllib.loads(to_toml(recipe.to_dict()))) == recipe


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,9}", fullmatch=True), st.one_of(
    st.integers(-(2**60), 2**60), st.floats(allow_nan=False, allow_infinity=False), st.booleans(),
    st.text(st.characters(codec="utf-8"), max_size=20),
)))  # fmt: skip
def test_to_toml_writes_what_tomllib_reads(values: dict[str, object]) -> None:
    assert tomllib.loads(to_toml(values)) == values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"epochs": 1.5}, "epochs is 1.5"),
        ({"epochs": True}, "epochs is True"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast'"),
        ({"batch_size": 1}, "batch_size is 1"),
        ({"eps": "8/0"}, "eps '8/0' is not a number"),
        ({"eps": "8/255x"}, "is not a number"),
        ({"eps": "-8/255"}, "is not above 0"),
        ({"image_size": 33}, "not a multiple of 8"),
        ({"milestones": [2, 1]}, "not in rising order"),
        ({"milestones": 5}, "milestones is 5"),
        ({"attack_start": "sideways"}, "attack_start is 'sideways'"),
        ({"schedule": "linear"}, "schedule is 'linear'"),
        ({"weight_average": "EMA"}, "weight_average is 'EMA'"),
        ({"awp_gamma": -0.005}, "awp_gamma is -0.005"),
        ({"awp_gamma": float("inf")}, "awp_gamma is inf"),
        ({"weight_decay": float("inf")}, "weight_decay is inf"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
        ({"label_smoothing": -0.1}, "label_smoothing is -0.1"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0"),
        ({"swa_start": float("nan")}, "swa_start is nan"),
        ({"rise_fraction": 1.0}, "rise_fraction is 1.0"),
        ({"method_settings": {"alpha": 2}}, "alpha 2"),
    ],
)
def test_bad_values_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve("rslad", "mobilenetv2", None, values)


def test_unknown_names_suggest_near_ones(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text("epoch = 3\n")
    with pytest.raises(UnknownNameError) as caught:
        resolve("rslad", "mobilenetv2", file, {})
    assert "'epoch'" in caught.value.message
    assert "r.toml" in caught.value.message
    assert "epochs" in caught.value.hint
    with pytest.raises(UnknownNameError, match="method 'rslab'"):
        resolve("rslab", "mobilenetv2", None, {})
    with pytest.raises(UnknownNameError, match="setting of method rslad 'aplha'"):
        resolve("rslad", "mobilenetv2", None, {"method_settings": {"aplha": 1}})


def test_missing_or_broken_file(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="is not a file"):
        read_recipe_file(tmp_path / "absent.toml")
    broken = tmp_path / "broken.toml"
    broken.write_bytes(b"\xff\xfe = [")
    with pytest.raises(UsageError, match="not valid TOML"):
        read_recipe_file(broken)
