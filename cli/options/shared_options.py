"""Options that several commands share as a whole: the fields of a dataclass become options of the command."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import fields as fields_of
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from cli.options import common as options

if TYPE_CHECKING:
    from cli.stages.inputs import Inputs

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
    attack_warm_start: options.WarmStart = None
    schedule: options.Schedule = None
    weight_average: options.WeightAverage = None
    ema_decay: options.EmaDecay = None
    awp_gamma: options.Awp = None
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
    accumulation: options.Accumulation = None
    sync_batchnorm: options.SyncBatchNorm = None
    compile: options.Compile = None
    label_cache_limit: options.LabelCacheLimit = "8GB"
    profile: options.Profile = False
    as_json: options.Json = False
    quiet: options.Quiet = False
    debug: options.Debug = False

    def recipe_flags(self) -> dict[str, Any]:
        """Those options that are fields of a recipe, by the recipe's names; ``None`` where one was not given."""
        names = (
            "epochs", "batch_size", "learning_rate", "attack_steps", "attack_warm_start", "train_samples", "eps",
            "seed", "image_size", "precision", "outer_precision", "accumulation", "sync_batchnorm", "compile",
            "extra_fraction", "schedule", "weight_average", "ema_decay", "awp_gamma", "label_smoothing",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def inputs(self, data: str | None) -> Inputs:
        """Where to compute, and on what."""
        from cli.stages.inputs import Inputs

        return Inputs(data, self.data_dir, self.download, self.device, self.threads, self.extra_data)


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
