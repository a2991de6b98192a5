"""Options that several commands share as a whole: the fields of a dataclass become options of the command."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from cli.options import common as options

# What a command does beside training, and how it speaks.
_OF_COMMANDS = ("eval_samples", "evaluate", "suite", "as_json", "quiet", "debug")

G = TypeVar("G")


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What ``distill`` and ``train`` share."""

    data: options.Data = None
    data_dir: options.DataDir = None
    download: options.Download = False
    image_size: options.ImageSize = None
    run: options.Run = None
    resume: options.Resume = False
    recipe: options.RecipeFile = None
    epochs: options.Epochs = None
    batch_size: options.BatchSize = None
    learning_rate: options.LearningRate = None
    attack_steps: options.AttackSteps = None
    warm_start: options.WarmStart = None
    schedule: options.Schedule = None
    weight_average: options.WeightAverage = None
    ema_decay: options.EmaDecay = None
    awp: options.Awp = None
    label_smoothing: options.LabelSmoothing = None
    train_samples: options.TrainSamples = None
    extra_data: options.ExtraData = None
    extra_fraction: options.ExtraFraction = None
    eval_samples: options.EvalSamples = None
    evaluate: options.Evaluate = "best"
    eps: options.Eps = None
    suite: options.Suite = None
    seed: options.Seed = None
    device: options.Device = "auto"
    threads: options.Threads = None
    precision: options.Precision = None
    outer_precision: options.OuterPrecision = None
    accumulate: options.Accumulation = None
    sync_batchnorm: options.SyncBatchNorm = None
    compile: options.Compile = None
    label_cache_limit: options.LabelCacheLimit = "8GB"
    profile: options.Profile = False
    as_json: options.Json = False
    quiet: options.Quiet = False
    debug: options.Debug = False

    def settings(self) -> dict[str, Any]:
        """Those options that ``compressor.train`` and ``compressor.distill`` take too, by their names."""
        return {field.name: getattr(self, field.name) for field in fields_of(self) if field.name not in _OF_COMMANDS}


def with_options(group: type[G]) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Give a command a group's options beside its own; it receives them together, as the argument ``shared``.

    Args:
        group: a dataclass whose fields are annotated like the options of a command.
    """
    hints = get_type_hints(group, include_extras=True)
    names = [field.name for field in fields_of(group)]  # type: ignore[arg-type]
    grouped = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in fields_of(group)  # type: ignore[arg-type]
    ]

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(command)
        def expanded(**given: Any) -> int:
            shared = group(**{name: given.pop(name) for name in names})
            return command(**given, shared=shared)

        own_hints = get_type_hints(command, globalns={**command.__globals__, "Path": Path}, include_extras=True)
        own = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=own_hints[parameter.name])
            for parameter in inspect.signature(command).parameters.values()
            if parameter.name != "shared"
        ]
        # Typer reads the signature and the annotations; both must be the expanded ones.
        expanded.__signature__ = inspect.Signature([*own, *grouped])  # type: ignore[attr-defined]
        expanded.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *grouped]}
        return expanded

    return decorate
