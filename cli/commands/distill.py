"""``compress distill``: teacher, student, attacks, ONNX, verdict: the whole way."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

from cli.options import common as options
from cli.options.declaring import option
from cli.options.shared_options import OutputOptions, TrainingOptions, with_options
from compressor.core.errors import UsageError


@with_options(TrainingOptions)
def distill(
    printing: OutputOptions,
    shared: TrainingOptions,
    teacher: Annotated[Path, option("FILE", "Checkpoint of the robust teacher.")],
    student: Annotated[
        str | None,
        option(
            "NAME",
            "Student model; `compress list models` shows them. Default: mobilenetv2.",
            callback=options.allow_code,
        ),
    ] = None,
    method: Annotated[
        str | None, option("NAME[,...]", "One or more methods; see `compress list methods`. Default: rslad.")
    ] = None,
    seeds: Annotated[
        str | None, option("N[,...]", "Train once for each seed and method; --run DIR holds all runs.")
    ] = None,
    teacher_model: options.TeacherModel = None,
    teacher_normalization: options.TeacherNormalization = None,
    teacher_activation: options.TeacherActivation = None,
    evidence_samples: options.EvidenceSamples = 256,
) -> int:
    """Distil a robust teacher into a small student, attack it, export it, and verify the exported file."""
    from cli.output.tables import show_outcomes, steps_of
    from compressor.api.evaluation import parse_checkpoint_choice
    from compressor.api.training import make_request
    from compressor.system import launch
    from compressor.system.interruption import stop_on_signals
    from compressor.training.teacher_file import TeacherRequest
    from exporters.pipeline.distillation import AfterTraining, distill_and_verify
    from exporters.pipeline.grid import distill_grid, gravest_exit_code

    methods, all_seeds = parse_methods(method), parse_seeds(seeds, shared.seed)
    request = make_request(
        model=student,
        method=methods[0],
        teacher=TeacherRequest(teacher, teacher_model, teacher_normalization, teacher_activation),
        **{**shared.settings(), "seed": all_seeds[0]},
    )
    after = AfterTraining(
        suite=shared.suite or "default",
        eval_samples=shared.eval_samples,
        evaluate=parse_checkpoint_choice(shared.evaluate),
        evidence_samples=evidence_samples,
    )
    with printing.open() as output, stop_on_signals() as stop:
        steps = steps_of(output, stop)
        if seeds is None and len(methods) == 1:
            done = distill_and_verify(request, after, steps)
            if done is None:  # one of several processes, and not the first
                return 0
            output.json("compress.distill/1", done.to_json())
            output.line(shlex.join(["compress", "verify", str(done.run.folder.onnx)]))
            return done.verdict.exit_code
        outcomes = distill_grid(request, methods, all_seeds, after, steps)
        if launch.rank() != 0:
            return 0
        show_outcomes(outcomes, output)
        output.json("compress.distill-grid/1", {"runs": [outcome.to_json() for outcome in outcomes]})
        finished = [str(outcome.config.folder.path) for outcome in outcomes if outcome.done]
        output.line(shlex.join(["compress", "compare", *finished]))
    return gravest_exit_code(outcomes)


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


def _distinct(option: str, text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise UsageError(f"{option} {text!r} has an empty place.", "Separate names by single commas.")
    if len(set(words)) < len(words):
        raise UsageError(f"{option} {text!r} names one twice.", "Name each once.")
    return words
