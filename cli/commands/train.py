"""``compress train``: a teacher or a baseline, without a teacher file."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Annotated

from cli.options import common as options
from cli.options.declaring import option
from cli.options.shared_options import OutputOptions, TrainingOptions, with_options
from compressor.models.user_code import is_user_code


@with_options(TrainingOptions)
def train(
    printing: OutputOptions,
    shared: TrainingOptions,
    model: Annotated[
        str | None,
        option(
            "NAME", "Model to train; `compress list models` shows them. Default: resnet18.", callback=options.allow_code
        ),
    ] = None,
    method: Annotated[str | None, option("NAME", "Method; see `compress list methods`. Default: sat.")] = None,
) -> int:
    """Train a model without a teacher: sat, trades, mart or natural."""
    from cli.output.tables import show_record
    from compressor.api.evaluation import evaluate_run, parse_checkpoint_choice
    from compressor.api.planning import plan_training, train_run
    from compressor.api.training import make_request
    from compressor.core.errors import UsageError
    from compressor.evaluation.suites import get_suite
    from compressor.system import launch
    from compressor.system.interruption import stop_on_signals
    from exporters.pipeline.distillation import run_json

    choice, suite = parse_checkpoint_choice(shared.evaluate), shared.suite or "default"
    if method is not None and "," in method:
        raise UsageError(
            f"--method {method!r} is a list, and `train` takes one name.", "`compress distill` takes several."
        )
    request = make_request(model=model, method=method, teacher=None, **shared.settings())
    with printing.open() as output, stop_on_signals() as stop:
        get_suite(suite)
        config = plan_training(request, output, splits=("train", "test"))
        run = train_run(config, None, reporter=output, stop=stop)
        report = evaluate_run(
            run, suite, shared.eval_samples, choice=choice, device=config.device, reporter=output, stop=stop,
            on_record=lambda record: show_record(run, record, output),
        )  # fmt: skip
        if launch.rank() == 0:
            output.json("compress.train/1", run_json(run, report))
            trained = run.recipe.model
            code = ["--model", trained] if is_user_code(trained) else []  # consent holds for one command
            words = replace(request.inputs, data=shared.data or "cifar10").words()
            output.line(shlex.join(["compress", "export", str(run.best), *code, *words]))
    return 0
