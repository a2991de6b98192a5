"""The recipe: every setting of a training run in one frozen, documented value, from defaults, a TOML file and flags."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from compressor.core.contracts import Method
from compressor.core.errors import UsageError
from compressor.core.registry import METHODS, unknown_name
from compressor.core.types import Norm, Threat
from compressor.numerics.ascent import Start
from compressor.runs.recipe_files import read_recipe_file

Augmentation = Literal["crop-flip", "crop", "none"]
Precision = Literal["auto", "fp32", "bf16"]
OuterPrecision = Literal["fp32", "bf16", "fp16"]
Schedule = Literal["milestones", "cosine", "one-cycle"]
WeightAverage = Literal["none", "ema", "swa"]
WeightDecayOn = Literal["all", "weights"]


@dataclass(frozen=True)
class Recipe:
    """All that decides what a run computes. Defaults are the RSLAD paper's and its released code's, where they say.

    Attributes:
        method: a registered training method.
        model: the network that is trained (the student, where there is a teacher).
        method_settings: the method's own fields that differ from its defaults.
        epochs: passes over the training images (300: RSLAD, section 4.1).
        batch_size: images a step, over all processes (128: RSLAD, section 4.1).
        train_samples: how many training images, drawn class-balanced by seed; 0 means all.
        validation_samples: images carved from train to select the best checkpoint, at most a tenth of those used; a
            dataset's own validation split takes its place.
        extra_fraction: of each batch, how much is generated images (0.7: Wang et al. 2023, with 1M); 0 for none.
        image_size: side of the square input, in pixels.
        augmentation: ``crop-flip`` pads by an eighth, crops at random and flips; ``crop`` does not flip (digits).
        learning_rate: of SGD, the largest (0.1: RSLAD).
        momentum: of SGD (0.9: RSLAD).
        nesterov: whether SGD looks ahead (off: RSLAD).
        weight_decay: L2 (2e-4: RSLAD).
        weight_decay_on: ``all`` parameters (RSLAD), or ``weights`` alone: no bias, and nothing of a BatchNorm (Wang et
            al. 2023, "Better Diffusion Models Further Improve Adversarial Training", spare BatchNorm).
        schedule: of the learning rate: ``milestones`` (RSLAD), ``cosine`` to zero (SGDR), or ``one-cycle``, up and down
            again (Wang et al. 2023).
        rise_fraction: of the run in which ``one-cycle`` rises (0.3: torch's; Wang et al. 2023: 0.025).
        milestones: where the learning rate falls, in epochs of ``schedule_epochs`` (215, 260, 285: RSLAD).
        schedule_epochs: the length that the milestones refer to; with other ``epochs`` they move in proportion.
        decay: the factor at each milestone (0.1: RSLAD).
        label_smoothing: the share of a label's probability that is spread over all classes, where a loss uses labels
            (Szegedy et al. 2016; 0.1: Wang et al. 2023).
        awp_gamma: how far weights are moved against the loss before each step, relative to their norm; 0 is off (Wu et
            al. 2020, AWP; their code has 0.005 with TRADES and 0.01 with SAT).
        awp_warmup: the fraction of the run before AWP starts (10 of 200 epochs with TRADES, 0 with SAT: their code).
        weight_average: what is validated, saved and exported: the model itself (``none``), the exponential moving
            average of its weights over the steps (``ema``; Wang et al. 2023), or their mean over the ends of epochs
            (``swa``; Izmailov et al. 2018).
        ema_decay: how much of the average a step leaves in place (0.995: Wang et al. 2023).
        ema_warmup: the fraction of the run before ``ema`` averages (0.025: Wang et al. 2023, their code).
        swa_start: the fraction of the run before ``swa`` averages (214 of 300 epochs: Jung et al. 2024, PeerAiD).
        norm: of the perturbation.
        eps: its size, as a fraction of the pixel range ("8/255": RSLAD).
        attack_steps: gradient steps of the inner maximisation (10: RSLAD).
        attack_step_size: length of a step in units of eps (1/4, which is 2/255 at 8/255: RSLAD).
        attack_start: ``gaussian`` (RSLAD, TRADES), ``uniform`` (SAT) or ``none``.
        attack_start_scale: standard deviation in pixel units for ``gaussian`` (0.001), fraction of eps for ``uniform``.
        selection_steps: PGD steps on the validation images when the best checkpoint is chosen.
        attack_warm_start: begin each image's perturbation at the one it had an epoch ago (Zheng et al. 2020, ATTA),
            which fewer steps then improve; the first epoch begins as ``attack_start`` says.
        accumulation: in how many passes each process works through its share of a batch; the gradients add up.
        precision: of what takes no weight gradients, the frozen teacher and the frozen twin that is attacked; ``auto``
            measures at the start and records its choice. Selection is always in fp32.
        outer_precision: of the outer step's forwards; ``bf16`` and ``fp16`` use autocast, ``fp16`` scales the loss.
        frozen_twin: attack a folded copy of the model instead of the model itself, wherever its mode allows.
        sync_batchnorm: BatchNorm uses the statistics of the whole batch, over all processes (GPUs only).
        compile: run the outer step's forwards through ``torch.compile``.
        seed: names every random number of the run.
    """

    method: str
    model: str
    method_settings: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 300
    batch_size: int = 128
    train_samples: int = 0
    validation_samples: int = 1000
    extra_fraction: float = 0.0
    image_size: int = 32
    augmentation: Augmentation = "crop-flip"
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 2e-4
    weight_decay_on: WeightDecayOn = "all"
    schedule: Schedule = "milestones"
    rise_fraction: float = 0.3
    milestones: tuple[float, ...] = (215.0, 260.0, 285.0)
    schedule_epochs: float = 300.0
    decay: float = 0.1
    label_smoothing: float = 0.0
    awp_gamma: float = 0.0
    awp_warmup: float = 0.05
    weight_average: WeightAverage = "none"
    ema_decay: float = 0.995
    ema_warmup: float = 0.025
    swa_start: float = 214 / 300
    norm: Norm = "Linf"
    eps: str = "8/255"
    attack_steps: int = 10
    attack_step_size: float = 0.25
    attack_start: Start = "gaussian"
    attack_start_scale: float = 0.001
    selection_steps: int = 10
    attack_warm_start: bool = False
    accumulation: int = 1
    precision: Precision = "auto"
    outer_precision: OuterPrecision = "fp32"
    frozen_twin: bool = True
    sync_batchnorm: bool = False
    compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in _AT_LEAST.items():
            if not low <= getattr(self, name) < float("inf"):
                raise UsageError(f"{name} is {getattr(self, name)}.", f"It must be a finite number, at least {low}.")
        for name in ("learning_rate", "schedule_epochs", "attack_step_size", "decay"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UsageError(f"{name} is {getattr(self, name)}.", "It must be a finite number above zero.")
        for name in _FRACTIONS:
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}.", "It must be at least 0 and below 1.")
        if self.image_size % 8:
            raise UsageError(f"image_size {self.image_size} is not a multiple of 8.", "The networks halve it thrice.")
        if list(self.milestones) != sorted(self.milestones):
            raise UsageError(f"milestones {list(self.milestones)} are not in rising order.", "Sort them.")
        _ = self.threat
        _refuse_contradictions(self, self.build_method())

    @property
    def threat(self) -> Threat:
        """The perturbations that training and selection attack with."""
        return Threat(self.norm, self.eps)

    def build_method(self) -> Method:
        """The method with its settings.

        Raises:
            UnknownNameError: no such method. UsageError: it has no such setting, or the value is out of range.
        """
        kind = METHODS.get(self.method)
        known = {f.name for f in dataclasses.fields(kind)}
        for name in self.method_settings:
            if name not in known:
                raise unknown_name(f"setting of method {self.method}", name, sorted(known) or ["(none)"])
        hints = get_type_hints(kind)
        method: Method = kind(**{k: _coerce(k, v, hints[k]) for k, v in self.method_settings.items()})
        return method

    def to_dict(self) -> dict[str, Any]:
        """JSON-able fields, in the order of the dataclass."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return values | {"milestones": list(self.milestones), "method_settings": dict(self.method_settings)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "the recipe") -> Recipe:
        """Build a recipe from plain values, checking names and types.

        Raises:
            UnknownNameError: a field that does not exist. UsageError: a value of the wrong type or out of range.
        """
        hints = get_type_hints(cls)
        fields = {f.name for f in dataclasses.fields(cls)}
        for name in values:
            if name not in fields:
                raise unknown_name(f"setting (in {source})", name, sorted(fields))
        return cls(**{name: _coerce(name, value, hints[name]) for name, value in values.items()})


_AT_LEAST = {
    "epochs": 1, "batch_size": 2, "train_samples": 0, "validation_samples": 1, "image_size": 8, "momentum": 0,
    "weight_decay": 0, "attack_steps": 1, "attack_start_scale": 0, "selection_steps": 1, "accumulation": 1, "seed": 0,
}  # fmt: skip
_FRACTIONS = (
    "rise_fraction", "label_smoothing", "awp_gamma", "awp_warmup", "ema_decay", "ema_warmup", "swa_start",
    "extra_fraction",
)  # fmt: skip


def resolve(
    method: str, model: str, file: Path | None, flags: Mapping[str, Any], *, implied: Mapping[str, Any] | None = None
) -> Recipe:
    """Put a recipe together: field defaults < the method's and the data's defaults < the recipe file < flags.

    Args:
        method: the default, where neither file nor flags name one.
        model: the default network, likewise.
        file: a TOML file whose keys are the fields of ``Recipe``, or None.
        flags: what the command line gave; ``None`` values mean "not given".
        implied: defaults that follow from the data, such as not to flip digits.

    Raises:
        UsageError, MissingInputError: the file is missing, is no TOML, or has a bad key or value.
    """
    from_file = read_recipe_file(file) if file else {}
    given = {name: value for name, value in flags.items() if value is not None}
    method = given.get("method", from_file.get("method", method))
    defaults: Mapping[str, Any] = METHODS.get(str(method)).recipe_defaults
    # A file's method settings are its own method's: RSLAD's alpha would pass for AdaAD's.
    fitting = from_file.get("method_settings", {}) if from_file.get("method", method) == method else {}
    settings = dict(fitting) | dict(given.get("method_settings", {}))
    layers = ({"method": method, "model": model}, defaults, implied or {}, from_file, given)
    values = {name: value for layer in layers for name, value in layer.items()} | {"method_settings": settings}
    recipe = Recipe.from_dict(values, source=str(file.name) if file else "the command line")
    _refuse_idle_flags(recipe.weight_average, given)
    return recipe


def foreign_settings(file: Path | None, recipe: Recipe) -> str | None:
    """What to tell where a file is one method's recipe, and a flag chose another method; ``None`` where all fits."""
    named = read_recipe_file(file).get("method", recipe.method) if file else recipe.method
    if file is None or named == recipe.method:
        return None
    return (
        f"{file.name} is a recipe of {named}: with {recipe.method} its method settings are left out, and the rest "
        "(learning rate, weight decay, epochs, attack) stays as it says"
    )


def _refuse_contradictions(recipe: Recipe, method: Method) -> None:
    """Refuse add-ons that the method has no use for, or that exclude each other."""
    if method.attack_mode == "none":
        if recipe.awp_gamma > 0:
            raise UsageError(
                f"AWP perturbs weights against an attack, and the method {recipe.method} makes none.",
                "Leave --awp out, or choose an adversarial --method.",
            )
        if recipe.attack_warm_start:
            raise UsageError(
                f"there is no attack to start warm: the method {recipe.method} makes none.",
                "Leave --warm-start out, or choose an adversarial --method.",
            )
    if recipe.nesterov and recipe.momentum == 0:
        raise UsageError("nesterov looks ahead along the momentum, and momentum is 0.", "Set one of the two.")
    if recipe.attack_warm_start and recipe.extra_fraction > 0:
        raise UsageError(
            "a warm start keeps a perturbation for each image, and extra data is drawn anew each time.",
            "Leave --warm-start or --extra-fraction out.",
        )
    if recipe.label_smoothing > 0 and method.labels_in != "loss":
        raise UsageError(
            f"there is nothing to smooth: no term of the method {recipe.method} is a cross-entropy with labels.",
            "Leave --label-smoothing out.",
        )


def _refuse_idle_flags(weight_average: str, given: Collection[str]) -> None:
    """Refuse what was asked for and would do nothing.

    A recipe file may hold such numbers beside a flag that makes them idle; a flag itself is always meant.

    Raises:
        UsageError: a flag has no effect.
    """
    if "ema_decay" in given and weight_average != "ema":
        raise UsageError(f"--ema-decay has no effect: weight_average is {weight_average}.", "Add --weight-average ema.")


def _coerce(name: str, value: Any, hint: Any) -> Any:
    """``value`` as the field's type; integers serve as floats, and nothing else is bent."""
    expected = f"{name} is {value!r}."
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            known = [str(choice) for choice in get_args(hint)]
            near = difflib.get_close_matches(str(value).lower(), known, n=1)
            did_you_mean = f"Did you mean {near[0]}? " if near else ""
            raise UsageError(expected, f"{did_you_mean}Use one of: {', '.join(known)}.")
        return value
    if get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise UsageError(expected, "It must be a list of numbers.")
        return tuple(_coerce(name, item, float) for item in value)
    if get_origin(hint) is not None:
        if not isinstance(value, Mapping):
            raise UsageError(expected, "It must be a table.")
        return dict(value)
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise UsageError(expected, f"It must be of type {hint.__name__}.")
    return value
