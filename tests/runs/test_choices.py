"""What a run chooses for itself: from the recipe or by measuring, once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from compressor.core.errors import UsageError
from compressor.core.registry import METHODS
from compressor.core.types import ModelSpec
from compressor.models.classifier import build_classifier
from compressor.runs import choices as module
from compressor.runs.choices import Choices, make_choices, read_choices, write_choices
from compressor.runs.recipe import Recipe

SAMPLE = torch.rand(4, 3, 16, 16)


def make(method: str = "rslad", *, teacher: bool = True, **settings: object) -> Choices:
    recipe = Recipe.from_dict({"method": method, "model": "wideresnet-10-1", "image_size": 16, **settings})
    network = build_classifier(ModelSpec("wideresnet-10-1", 3, 16), seed=0)
    return make_choices(recipe, METHODS.get(method)(), network, network if teacher else None, SAMPLE)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_the_recipe_says_is_not_measured(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "choose_precision", lambda *_, **__: pytest.fail("measured"))
    assert make(precision=precision) == Choices(precision, precision)  # type: ignore[arg-type]


def test_auto_measures_the_twin_with_its_gradient_and_the_teacher_without(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def choose(model: object, sample: torch.Tensor, *, with_gradient: bool) -> str:
        asked.append(with_gradient)
        return "bf16" if with_gradient else "fp32"

    monkeypatch.setattr(module, "choose_precision", choose)
    assert make() == Choices("bf16", "fp32")
    assert asked == [True, False]


def test_no_twin_where_the_recipe_forbids_it_and_no_teacher_where_there_is_none() -> None:
    assert make(precision="fp32", frozen_twin=False) == Choices(None, "fp32")
    assert make("sat", teacher=False, precision="fp32") == Choices("fp32", None)


def test_choices_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "choices.json"
    assert read_choices(path) is None
    write_choices(path, Choices("bf16", None))
    assert read_choices(path) == Choices("bf16", None)


@pytest.mark.parametrize("text", ["", "[]", '{"twin": "int8", "teacher": null}', '{"twin": "fp32"}', '{"twin": []}'])
def test_damaged_choices_are_a_sentence(text: str, tmp_path: Path) -> None:
    path = tmp_path / "choices.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"choices\.json cannot be read"):
        read_choices(path)
