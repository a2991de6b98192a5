"""Options that several commands share as a whole: the fields of a dataclass become options of the command."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

from cli.options import common as options
from cli.options.common import COMPUTE, OUTPUT, TRAINING
from cli.options.declaring import option, switch
from cli.output.console import Output

# What a command does beside training.
_OF_COMMANDS = ("eval_samples", "evaluate", "suite")

G = TypeVar("G")


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What ``distill`` and ``train`` share."""

    data: options.Data = None
    data_dir: options.DataDir = None
    download: options.Download = False
    image_size: options.ImageSize = None
    run: Annotated[Path | None, option("DIR", "Run folder. Default: runs/METHOD-MODEL-DATASET-sSEED.", OUTPUT)] = None
    resume: Annotated[
        bool, switch("--resume", "Continue the run in the run folder, or start it if there is none.", OUTPUT)
    ] = False
    recipe: Annotated[Path | None, option("FILE", "TOML recipe. Options override it.", TRAINING)] = None
    epochs: Annotated[int | None, option("N", "Passes over the training images.", TRAINING, min=1)] = None
    batch_size: Annotated[int | None, option("N", "Images per step.", TRAINING, min=2)] = None
    learning_rate: Annotated[float | None, option("X", "Largest learning rate of SGD.", TRAINING)] = None
    attack_steps: Annotated[int | None, option("N", "Steps of the inner maximisation.", TRAINING, min=1)] = None
    warm_start: Annotated[
        bool | None,
        switch(
            "--warm-start",
            "Start each image's attack where it ended an epoch ago. Use fewer --attack-steps with it.",
            TRAINING,
        ),
    ] = None
    schedule: Annotated[
        str | None,
        option("NAME", "Learning rate schedule: milestones, cosine or one-cycle. Default: milestones.", TRAINING),
    ] = None
    weight_average: Annotated[
        str | None,
        option(
            "NAME", "Validate, save and export an average of the weights: none, ema or swa. Default: none.", TRAINING
        ),
    ] = None
    ema_decay: Annotated[float | None, option("X", "Decay of --weight-average ema. Default: 0.995.", TRAINING)] = None
    awp: Annotated[
        float | None,
        option(
            "GAMMA",
            "Compute each step at weights perturbed against the loss by GAMMA times their norm, such as 0.005.",
            TRAINING,
        ),
    ] = None
    label_smoothing: Annotated[
        float | None,
        option("X", "Label smoothing: spread X of each label over all classes if the loss uses labels.", TRAINING),
    ] = None
    train_samples: Annotated[
        int | None, option("N", "Train on N images, drawn by seed. Default: all.", TRAINING, min=1)
    ] = None
    extra_data: Annotated[
        Path | None,
        option(
            "FILE.npz",
            "Mix generated images into each batch: arrays image, uint8 [N, H, W, 3], and label, [N].",
            TRAINING,
        ),
    ] = None
    extra_fraction: Annotated[
        float | None,
        option("X", "Fraction of each batch that comes from --extra-data, between 0 and 1, such as 0.7.", TRAINING),
    ] = None
    eval_samples: options.EvalSamples = None
    evaluate: Annotated[
        str, option("WHICH", "Attack the best checkpoint, or both (best and last): best or both.", OUTPUT)
    ] = "best"
    eps: options.Eps = None
    suite: options.Suite = None
    seed: options.Seed = None
    device: options.Device = "auto"
    threads: options.Threads = None
    precision: Annotated[
        str | None,
        option(
            "NAME",
            "Precision of the teacher and of the attacked copy: auto (measured), fp32 or bf16. Default: auto.",
            COMPUTE,
        ),
    ] = None
    outer_precision: Annotated[
        str | None,
        option(
            "NAME",
            "Precision of the passes that change the weights: fp32, bf16 or fp16 (autocast). Default: fp32.",
            COMPUTE,
        ),
    ] = None
    accumulate: Annotated[int | None, option("N", "Split each batch into N passes to save memory.", COMPUTE, min=1)] = (
        None
    )
    sync_batchnorm: Annotated[
        bool | None, switch("--sync-batchnorm", "Compute batch statistics over all processes (GPUs only).", COMPUTE)
    ] = None
    compile: Annotated[
        bool | None, switch("--compile", "Compile the passes that change the weights (torch.compile).", COMPUTE)
    ] = None
    label_cache_limit: Annotated[
        str,
        option(
            "SIZE",
            "Cache the teacher's logits for later epochs and runs if they fit into SIZE, such as 8GB. 0 caches none.",
            COMPUTE,
        ),
    ] = "8GB"
    profile: Annotated[
        bool, switch("--profile", "Show where a step's time goes, and write it to profile.json.", OUTPUT)
    ] = False

    def settings(self) -> dict[str, Any]:
        """Those options that ``compressor.train`` and ``compressor.distill`` take too, by their names."""
        return {field.name: getattr(self, field.name) for field in fields_of(self) if field.name not in _OF_COMMANDS}


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """How a command prints: every command has these options, and takes them as the argument ``printing``."""

    as_json: Annotated[bool, switch("--json", "Print exactly one JSON object on stdout.", OUTPUT)] = False
    quiet: Annotated[bool, switch("--quiet", "Show no progress and no notes.", OUTPUT, also="-q")] = False
    debug: Annotated[bool, switch("--debug", "Show tracebacks.", OUTPUT)] = False

    def open(self) -> Output:
        """What the command prints with."""
        return Output(as_json=self.as_json, quiet=self.quiet)


def with_options(group: type[G], into: str = "shared") -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Give a command a group's options after its own; it receives them together, as one argument.

    Args:
        group: a dataclass whose fields are annotated like the options of a command.
        into: the name of that argument.
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
            given[into] = group(**{name: given.pop(name) for name in names})
            return command(**given)

        own_hints = get_type_hints(command, globalns={**command.__globals__, "Path": Path}, include_extras=True)
        own = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=own_hints[parameter.name])
            for parameter in inspect.signature(command).parameters.values()
            if parameter.name != into
        ]
        # Typer reads the signature and the annotations; both must be the expanded ones.
        expanded.__signature__ = inspect.Signature([*own, *grouped])  # type: ignore[attr-defined]
        expanded.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *grouped]}
        return expanded

    return decorate
