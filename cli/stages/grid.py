"""Lists of methods and seeds on the command line, and the table of the runs that came of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cli.output.console import Output
from compressor.core.errors import UsageError
from compressor.core.notebook import percent

if TYPE_CHECKING:
    from exporters.pipeline.grid import RunOutcome


def parse_methods(text: str | None) -> list[str | None]:
    """``a,b,c``; ``[None]`` where nothing was given, which leaves the choice to the recipe.

    Raises:
        UsageError: an empty name, or one twice.
    """
    return [None] if text is None else list(_distinct("--method", text))


def parse_seeds(text: str | None, seed: int | None) -> list[int | None]:
    """``0,1,2``, or what ``--seed`` says.

    Raises:
        UsageError: not whole numbers from 0 on, one twice, or both options at once.
    """
    if text is None:
        return [seed]
    if seed is not None:
        raise UsageError("--seed and --seeds exclude each other.", "Name all seeds in --seeds.")
    seeds = _distinct("--seeds", text)
    if not all(word.isascii() and word.isdigit() and len(word) < 10 for word in seeds):
        raise UsageError(f"--seeds {text!r} is not a list of whole numbers.", "Write it as 0,1,2.")
    numbers = [int(word) for word in seeds]
    if len(set(numbers)) < len(numbers):
        raise UsageError(f"--seeds {text!r} names a seed twice.", "Name each once.")
    return list(numbers)


def show_outcomes(outcomes: Sequence[RunOutcome], output: Output) -> None:
    """A line for each run: its accuracies, in the worst case too, and the verdict on its file."""
    output.table(
        f"{len(outcomes)} runs",
        ["run", "method", "seed", "clean", "worst case", "verdict"],
        [_row(outcome) for outcome in outcomes],
        labels=3,
    )


def _row(outcome: RunOutcome) -> tuple[str, ...]:
    recipe, done = outcome.config.recipe, outcome.done
    name = (outcome.config.folder.path.name, recipe.method, str(recipe.seed))
    if outcome.error is not None or done is None:
        return (*name, "-", "-", outcome.error.code if outcome.error else "-")
    report = done.report
    worst = percent(report.robust_accuracy) + ("" if report.trustworthy else ", NOT TRUSTWORTHY")
    return (*name, percent(report.clean_accuracy), worst, done.verdict.answer)


def _distinct(option: str, text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise UsageError(f"{option} {text!r} has an empty place.", "Separate names by single commas.")
    if len(set(words)) < len(words):
        raise UsageError(f"{option} {text!r} names one twice.", "Name each once.")
    return words
