"""``compress train``: a teacher or a baseline, without a teacher file."""

from __future__ import annotations

import shlex
from typing import Annotated

from cli.options import common as options
from cli.options.declaring import option
from cli.options.shared_options import TrainingOptions, with_options
from cli.output.console import Output
from compressor.models.user_code import is_user_code


@with_options(TrainingOptions)
def train(
    shared: TrainingOptions,
    model: Annotated[
        str | None,
        option(
            "--model",
            "NAME",
            "Model to train; `compress list models` shows them. Default: resnet18.",
            callback=options.allow_code,
        ),
    ] = None,
    method: Annotated[
        str | None, option("--method", "NAME", "Method; see `compress list methods`. Default: sat.")
    ] = None,
) -> int:
    """Train a model without a teacher: sat, trades, mart or natural."""
    from cli.stages.evaluation import parse_checkpoint_choice
    from cli.stages.recipes import resolve_recipe_file
    from cli.stages.run_stages import Extras, check_before_training, evaluate_run, make_recipe, run_folder, train_run
    from compressor.core.errors import UsageError
    from compressor.core.types import DatasetSpec
    from compressor.runs.recipe import foreign_settings
    from compressor.system import launch
    from compressor.system.interruption import stop_on_signals
    from compressor.training.session import refuse_missing_teacher

    wanted = parse_checkpoint_choice(shared.evaluate)
    extras = Extras.parse(shared.label_cache_limit, profile=shared.profile)
    spec = DatasetSpec.parse(shared.data or "cifar10")
    flags = {"method": method, "model": model, **shared.recipe_flags()}
    recipe_file = resolve_recipe_file(shared.recipe)
    if method is not None and "," in method:
        raise UsageError(
            f"--method {method!r} is a list, and `train` takes one name.", "`compress distill` takes several."
        )
    settings = make_recipe("sat", "resnet18", recipe_file, flags, spec.name)
    refuse_missing_teacher(settings)  # before any data is asked for
    inputs, suite, resume = shared.inputs(str(spec)), shared.suite or "default", shared.resume
    with Output(as_json=shared.as_json, quiet=shared.quiet) as output, stop_on_signals() as stop:
        if foreign := foreign_settings(recipe_file, settings):
            output.warn(foreign)
        where = inputs.device()
        dataset = inputs.open(lambda: str(spec), settings.image_size, output)
        check_before_training(dataset, suite, run_folder(settings, dataset, shared.run), resume=resume)
        trained = train_run(
            settings, dataset, inputs, None, run=shared.run, resume=resume, extras=extras, output=output, stop=stop
        )
        report = evaluate_run(
            trained, suite, shared.eval_samples, wanted=wanted, device=where, output=output, stop=stop
        )
        if launch.rank() == 0:
            output.json("compress.train/1", trained.to_json(report))
            code = ["--model", settings.model] if is_user_code(settings.model) else []  # consent holds for one command
            output.line(shlex.join(["compress", "export", str(trained.run.best), *code, *inputs.words()]))
    return 0
