"""A group's fields become options of a command, and reach it together."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Annotated

import typer
from typer.testing import CliRunner

from cli.commands.distill import distill
from cli.commands.train import train
from cli.options.shared_options import TrainingOptions, with_options
from compressor.api.training import _OTHER_NAMES, TrainingSettings, make_request
from compressor.runs.recipe import Recipe

OF_THE_RUN = {
    "data", "data_dir", "device", "download", "extra_data", "label_cache_limit", "profile", "recipe", "resume", "run",
    "threads",
}  # fmt: skip
"""Options that are no field of the recipe: what they say changes no result, or names the data."""


@dataclass(frozen=True, kw_only=True)
class Group:
    size: Annotated[int | None, typer.Option("--size", min=1)] = None
    loud: Annotated[bool, typer.Option("--loud")] = False


seen: list[tuple[str, Group]] = []


@with_options(Group)
def command(shared: Group, name: Annotated[str, typer.Option("--name")] = "x") -> int:
    """Do it."""
    seen.append((name, shared))
    return 0


def invoke(*arguments: str) -> int:
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, list(arguments)).exit_code


def test_own_and_shared_options_arrive_where_they_belong() -> None:
    seen.clear()
    assert invoke("--name", "a", "--size", "3", "--loud") == 0
    assert invoke() == 0
    assert seen == [("a", Group(size=3, loud=True)), ("x", Group())]


def test_bounds_of_shared_options_hold() -> None:
    assert invoke("--size", "0") == 2
    assert invoke("--absent") == 2


def test_the_help_of_the_command_stays() -> None:
    assert command.__doc__ == "Do it."


def test_distill_and_train_share_every_option_of_the_group() -> None:
    shared = set(TrainingOptions.__dataclass_fields__)
    for made in (distill, train):
        assert shared <= set(inspect.signature(made).parameters)


def test_the_options_are_the_arguments_of_train_and_distill() -> None:
    settings = TrainingOptions().settings()
    assert set(settings) == set(TrainingSettings.__annotations__)
    without, named = (make_request(model=None, method=None, teacher=None, **given) for given in ({}, settings))
    assert without == named, "the defaults are the same"
    of_recipe = {_OTHER_NAMES.get(name, name) for name in set(settings) - OF_THE_RUN}
    assert OF_THE_RUN | set(_OTHER_NAMES) <= set(settings)
    assert of_recipe <= set(Recipe.__dataclass_fields__)
