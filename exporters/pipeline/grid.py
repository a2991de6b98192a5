"""Several methods and seeds: every run like a single one, the teacher and the data read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from compressor.api.planning import TrainingRequest, open_inputs, settle_teacher
from compressor.core.errors import CompressError
from compressor.system import launch
from compressor.training.configuration import RunConfig
from exporters.api.exporting import Steps
from exporters.pipeline.distillation import AfterTraining, Distilled, carry_out, plan_whole_way

_GRAVEST_FIRST = (1, 3, 2)


@dataclass(frozen=True)
class RunOutcome:
    """What became of one run of a grid: its result, or why there is none."""

    config: RunConfig
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
        recipe = self.config.recipe
        fields = {"method": recipe.method, "seed": recipe.seed, "run": str(self.config.folder.path)}
        if self.error is not None:
            error = {"code": self.error.code, "message": self.error.message, "hint": self.error.hint}
            return {**fields, "error": error, "exit_code": self.exit_code}
        return {**fields, **(self.done.to_json() if self.done else {}), "exit_code": self.exit_code}


def distill_grid(
    request: TrainingRequest,
    methods: Sequence[str | None],
    seeds: Sequence[int | None],
    after: AfterTraining,
    steps: Steps,
) -> list[RunOutcome]:
    """One run for each method and seed, each in a folder of its own; all are checked before the first begins.

    A run that fails is reported, and the others go on; one that is stopped stops them all.

    Args:
        request: what they share; its ``run`` is the folder that holds theirs.
        methods: their methods; None leaves the choice to the recipe.
        seeds: their seeds; likewise.
        after: what is done with each student.
        steps: what is told, asked and done along the way.

    Raises:
        CompressError: the teacher, the data, or any run's settings cannot be used. Interrupted: a signal came.
    """
    reporter = steps.reporter
    opened = open_inputs(request, reporter)
    shared = replace(request, run=None, within=request.run)
    configs = [
        plan_whole_way(
            replace(shared, settings={**request.settings, "method": method, "seed": seed}), after, opened, reporter
        )
        for method in methods
        for seed in seeds
    ]
    teacher = settle_teacher(request, opened, configs, reporter)
    outcomes = []
    for number, config in enumerate(configs, start=1):
        reporter.phase(f"Run {number} of {len(configs)}: {config.folder.path}")
        try:
            outcomes.append(RunOutcome(config, carry_out(config, teacher, request.inputs.threads, after, steps)))
        except CompressError as error:
            if launch.world_size() > 1:
                raise  # the other processes are in the middle of something
            reporter.warn(f"{config.folder.path}: {error.message} {error.hint}")
            # Its traceback holds the run's networks, and the next ones need the memory.
            error.__traceback__ = error.__context__ = error.__cause__ = None
            outcomes.append(RunOutcome(config, error=error))
    return outcomes


def gravest_exit_code(outcomes: Sequence[RunOutcome]) -> int:
    """The gravest of the runs' codes: violated, then undecided, then wrong usage; 0 if all hold."""
    codes = {outcome.exit_code for outcome in outcomes}
    return next((code for code in _GRAVEST_FIRST if code in codes), 0)
