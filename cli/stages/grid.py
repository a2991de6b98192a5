"""Several methods and seeds from one command: every run like a single one, the teacher and the data read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cli.output.console import Output, percent
from cli.stages.pipeline import Distillation, Distilled, Plan, carry_out, make_plan, open_inputs, settle_teacher
from compressor.core.errors import CompressError, UsageError
from compressor.system import launch
from compressor.system.interruption import StopRequest

_GRAVEST_FIRST = (1, 3, 2)


@dataclass(frozen=True)
class RunOutcome:
    """What became of one run of a grid: its result, or why there is none."""

    plan: Plan
    done: Distilled | None = None
    error: CompressError | None = None

    @property
    def exit_code(self) -> int:
        """What the run alone would have returned."""
        if self.error is not None:
            return self.error.exit_code
        return 0 if self.done is None else self.done.verdict.exit_code

    def to_json(self) -> dict[str, Any]:
        """The fields of ``distill``, or the error, beside method and seed."""
        fields = {"method": self.plan.recipe.method, "seed": self.plan.recipe.seed, "run": str(self.plan.folder.path)}
        if self.error is not None:
            error = {"code": self.error.code, "message": self.error.message, "hint": self.error.hint}
            return {**fields, "error": error, "exit_code": self.exit_code}
        return {**fields, **(self.done.to_json() if self.done else {}), "exit_code": self.exit_code}


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


def distill_grid(
    request: Distillation,
    methods: Sequence[str | None],
    seeds: Sequence[int | None],
    *,
    output: Output,
    stop: StopRequest,
) -> list[RunOutcome]:
    """One run for each method and seed, each in a folder of its own; all are checked before the first begins.

    A run that fails is reported, and the others go on; one that is stopped stops them all.

    Args:
        request: what they share; its ``run`` is the folder that holds theirs.
        methods: their methods.
        seeds: their seeds.
        output: told of progress.
        stop: asked after every step.

    Raises:
        CompressError: the teacher, the data, or any run's settings cannot be used. Interrupted: a signal came.
    """
    opened = open_inputs(request, output)
    shared = replace(request, run=None, within=request.run)
    plans = [
        make_plan(replace(shared, flags={**request.flags, "method": method, "seed": seed}), opened)
        for method in methods
        for seed in seeds
    ]
    teacher = settle_teacher(opened, plans, output)
    outcomes = []
    for number, plan in enumerate(plans, start=1):
        output.phase(f"Run {number} of {len(plans)}: {plan.folder.path}")
        try:
            outcomes.append(RunOutcome(plan, carry_out(plan, opened, teacher, output=output, stop=stop)))
        except CompressError as error:
            if launch.world_size() > 1:
                raise  # the other processes are in the middle of something
            output.warn(f"{plan.folder.path}: {error.message} {error.hint}")
            # Its traceback holds the run's networks, and the next ones need the memory.
            error.__traceback__ = error.__context__ = error.__cause__ = None
            outcomes.append(RunOutcome(plan, error=error))
    return outcomes


def exit_code(outcomes: Sequence[RunOutcome]) -> int:
    """The gravest of the runs' codes: violated, then undecided, then wrong usage; 0 if all hold."""
    codes = {outcome.exit_code for outcome in outcomes}
    return next((code for code in _GRAVEST_FIRST if code in codes), 0)


def show_outcomes(outcomes: Sequence[RunOutcome], output: Output) -> None:
    """A line for each run: its accuracies, in the worst case too, and the verdict on its file."""
    output.table(
        f"{len(outcomes)} runs",
        ["run", "method", "seed", "clean", "worst case", "verdict"],
        [_row(outcome) for outcome in outcomes],
        labels=3,
    )


def _row(outcome: RunOutcome) -> tuple[str, ...]:
    recipe, done = outcome.plan.recipe, outcome.done
    name = (outcome.plan.folder.path.name, recipe.method, str(recipe.seed))
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
