"""``compress distill``: teacher, student, attacks, ONNX, verdict: the whole way."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cli.options import common as options
from cli.options.declaring import option
from cli.options.shared_options import TrainingOptions, with_options
from cli.output.console import Output

if TYPE_CHECKING:
    from cli.stages.pipeline import Distillation
    from compressor.system.interruption import StopRequest


@with_options(TrainingOptions)
def distill(
    shared: TrainingOptions,
    teacher: Annotated[Path, option("--teacher", "FILE", "Checkpoint of the robust teacher.")],
    student: Annotated[
        str | None,
        option(
            "--student",
            "NAME",
            "Student model; `compress list models` shows them. Default: mobilenetv2.",
            callback=options.allow_code,
        ),
    ] = None,
    method: Annotated[
        str | None,
        option("--method", "NAME[,...]", "One or more methods; see `compress list methods`. Default: rslad."),
    ] = None,
    seeds: Annotated[
        str | None, option("--seeds", "N[,...]", "Train once for each seed and method; --run DIR holds all runs.")
    ] = None,
    teacher_model: options.TeacherModel = None,
    teacher_normalization: options.TeacherNormalization = None,
    teacher_activation: options.TeacherActivation = None,
    evidence_samples: options.EvidenceSamples = 256,
) -> int:
    """Distil a robust teacher into a small student, attack it, export it, and verify the exported file."""
    from cli.stages.evaluation import parse_checkpoint_choice
    from cli.stages.grid import parse_methods, parse_seeds
    from cli.stages.pipeline import Distillation
    from cli.stages.run_stages import Extras
    from compressor.system.interruption import stop_on_signals
    from compressor.training.session import TeacherRequest

    methods, all_seeds = parse_methods(method), parse_seeds(seeds, shared.seed)
    request = Distillation(
        teacher=TeacherRequest(teacher, teacher_model, teacher_normalization, teacher_activation),
        inputs=shared.inputs(shared.data),
        recipe_file=shared.recipe,
        flags={**shared.recipe_flags(), "method": methods[0], "model": student, "seed": all_seeds[0]},
        run=shared.run,
        resume=shared.resume,
        suite=shared.suite or "default",
        eval_samples=shared.eval_samples,
        evidence_samples=evidence_samples,
        evaluate=parse_checkpoint_choice(shared.evaluate),
        extras=Extras.parse(shared.label_cache_limit, profile=shared.profile),
    )
    with Output(as_json=shared.as_json, quiet=shared.quiet) as output, stop_on_signals() as stop:
        if seeds is None and len(methods) == 1:
            return _one(request, output, stop)
        return _grid(request, methods, all_seeds, output, stop)


def _one(request: Distillation, output: Output, stop: StopRequest) -> int:
    from cli.stages.pipeline import distill_run

    done = distill_run(request, output=output, stop=stop)
    if done is None:  # one of several processes, and not the first
        return 0
    output.json("compress.distill/1", done.to_json())
    output.line(shlex.join(["compress", "verify", str(done.trained.run.onnx)]))
    return done.verdict.exit_code


def _grid(
    request: Distillation,
    methods: list[str | None],
    seeds: list[int | None],
    output: Output,
    stop: StopRequest,
) -> int:
    from cli.stages.grid import distill_grid, exit_code, show_outcomes
    from compressor.system import launch

    outcomes = distill_grid(request, methods, seeds, output=output, stop=stop)
    if launch.rank() != 0:
        return 0
    show_outcomes(outcomes, output)
    output.json("compress.distill-grid/1", {"runs": [outcome.to_json() for outcome in outcomes]})
    output.line(shlex.join(["compress", "compare", *(str(o.plan.folder.path) for o in outcomes if o.done)]))
    return exit_code(outcomes)
