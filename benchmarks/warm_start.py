"""Is a warm start worth it? RSLAD with few attack steps, cold and warm, against the published ten; in Markdown.

python benchmarks/warm_start.py --teacher FILE --data imagefolder:DIR --runs DIR [--seeds 0 1] [--settings 4-cold ...]

Runs of one seed share images, epochs and the label cache, so that they differ in the attack alone. Stopped and called
again, it continues; once all runs are done it only prints. A setting's steps are of one length, cold and
warm alike: eps/4 for ten, as published, and eps/2 for fewer, with which two cold steps just reach the border. Where
other work shares the machine, seconds say little: milliseconds are the fastest epoch's, and operations are counted.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressor.checkpoint import LoadedCheckpoint, load_checkpoint
from compressor.core.contracts import Dataset
from compressor.core.errors import CompressError
from compressor.core.registry import METHODS
from compressor.core.reporting import SilentReporter
from compressor.core.types import DatasetSpec, ModelSpec
from compressor.data.datasets import open_dataset, take_balanced
from compressor.evaluation.evaluate import evaluate
from compressor.evaluation.suites import Suite, SuiteColumn
from compressor.models.classifier import build_empty_network
from compressor.models.costs import step_cost
from compressor.numerics.ascent import ascend, project
from compressor.numerics.augment import apply_variants, choose_variants
from compressor.numerics.losses import kl_divergence
from compressor.numerics.randomness import make_generator
from compressor.numerics.statistics import binomial_tail
from compressor.runs.recipe import Recipe, resolve
from compressor.runs.run_folder import RunFolder
from compressor.system.files import write_json
from compressor.system.interruption import StopRequest, stop_on_signals
from compressor.training.configuration import RunConfig
from compressor.training.preparation import training_images
from compressor.training.session import train
from compressor.training.step.perturbations import Perturbations
from compressor.training.teacher_file import TeacherRequest, read_teacher, settle_open_questions

SIDE = 32
PGD_20 = Suite("warm-start", 1, "PGD-20", (SuiteColumn("PGD-20", "pgd-sat", {"step_size": "0.25eps"}),))


@dataclass(frozen=True)
class Setting:
    """How the inner maximisation is done: gradients an image, a step's length in eps, where it begins."""

    steps: int
    step_size: float
    warm: bool

    @property
    def name(self) -> str:
        """Such as ``4-warm``."""
        return f"{self.steps}-{'warm' if self.warm else 'cold'}"


SETTINGS = {
    setting.name: setting
    for setting in (
        Setting(10, 0.25, warm=False),
        Setting(4, 0.5, warm=False),
        Setting(4, 0.5, warm=True),
        Setting(2, 0.5, warm=False),
        Setting(2, 0.5, warm=True),
    )
}

PAIRS = [
    ("4-warm", "4-cold"),
    ("2-warm", "2-cold"),
    ("4-warm", "10-cold"),
    ("4-cold", "10-cold"),
    ("2-warm", "10-cold"),
    ("2-cold", "10-cold"),
]

KEPT = SETTINGS["4-warm"]  # whose kept perturbations are looked at
ASCENT_IMAGES = 300  # images


class Lines(SilentReporter):
    """Prints notes and warnings, a line each."""

    def __init__(self, name: str) -> None:
        self._name = name

    def note(self, text: str) -> None:
        """Print it."""
        print(f"[{self._name}] {text}", flush=True)

    warn = note


def recipe_of(setting: Setting, seed: int, arguments: argparse.Namespace) -> Recipe:
    """The recipe file's, with this setting's attack."""
    flags = {
        "epochs": arguments.epochs,
        "train_samples": arguments.train_samples,
        "validation_samples": arguments.validation_samples,
        "attack_steps": setting.steps,
        "attack_step_size": setting.step_size,
        "attack_warm_start": setting.warm,
        "precision": arguments.precision,
        "seed": seed,
    }
    return resolve("rslad", arguments.student, arguments.recipe, flags)


def run(
    recipe: Recipe, folder: RunFolder, dataset: Dataset, teacher: LoadedCheckpoint, samples: int, stop: StopRequest
) -> dict[str, Any]:
    """Train and attack the last checkpoint, or go on, or read what was found.

    Seconds leave the teacher out: the first run of a seed asks, and the others find its answers.
    """
    lines, device = Lines(folder.path.name), torch.device("cpu")
    with folder.lock():
        result = train(RunConfig(recipe, dataset, folder, device, True), teacher, reporter=lines, stop=stop)
        if not folder.evaluation.is_file():
            test = take_balanced(dataset.load("test"), samples, recipe.seed)
            model = load_checkpoint(result.last).classifier.to(memory_format=torch.channels_last)
            report = evaluate(model, test.images, test.labels, recipe.threat, PGD_20, seed=recipe.seed, soundness=False)
            robust_so_far = np.flatnonzero(report.attacks["PGD-20"]).tolist()
            write_json(folder.evaluation, {**report.to_json(), "standing": robust_so_far})
    found = json.loads(folder.evaluation.read_text(encoding="utf-8"))
    timings = [json.loads(line) for line in folder.timings.read_text(encoding="utf-8").splitlines()]
    seconds = [timing["seconds"] - timing["parts"]["teacher"] for timing in timings]
    # Not by the size of the training set: an epoch that was gone on with is timed from there.
    images = [timing["seconds"] * timing["images_per_second"] for timing in timings]
    last = result.records[-1]["validation"]
    return {
        "seconds": sum(seconds),
        "ms_an_image": min(1e3 * s / n for s, n in zip(seconds, images, strict=True)),
        "standing": set(found["standing"]),
        "clean": found["clean_accuracy"],
        "clean_interval": found["intervals"]["clean_accuracy"],
        "robust": found["attacks"]["PGD-20"],
        "robust_interval": found["intervals"]["attacks"]["PGD-20"],
        "validation_clean": last["clean_accuracy"],
        "validation_robust": last[f"pgd_{recipe.selection_steps}_accuracy"],
    }


def row(setting: Setting, recipe: Recipe, found: dict[str, Any], classes: int) -> str:
    """A line of the table; the work is counted, forwards and backwards of the student alone."""
    student = build_empty_network(ModelSpec(recipe.model, classes, recipe.image_size))
    # The teacher's answers are in the cache: the student stands in, and no work is counted for it.
    cost = step_cost(METHODS.get("rslad")(), student, student, image_size=SIDE, attack_steps=setting.steps, asked=0)
    rates = [
        f"{100 * found[name]:.1f} ({100 * low:.1f} to {100 * high:.1f})"
        for name in ("clean", "robust")
        for low, high in [found[f"{name}_interval"]]
    ]
    cells = [
        f"{setting.steps} steps of {setting.step_size:g} eps, {'warm' if setting.warm else 'cold'}",
        recipe.seed,
        f"{cost.total / 1e9:.2f}",
        f"{found['ms_an_image']:.1f}",
        f"{found['seconds']:.0f}",
        *rates,
        f"{100 * found['validation_clean']:.1f}",
        f"{100 * found['validation_robust']:.1f}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def print_table(arguments: argparse.Namespace, dataset: Dataset, teacher: LoadedCheckpoint, stop: StopRequest) -> None:
    """Do what is left to do, setting by setting, and print the tables."""
    rows, robust_so_far = [], {}
    for seed in arguments.seeds:
        for setting in (SETTINGS[name] for name in arguments.settings):
            recipe = recipe_of(setting, seed, arguments)
            folder = RunFolder(arguments.runs / f"{setting.name}-s{seed}")
            found = run(recipe, folder, dataset, teacher, arguments.eval_samples, stop)
            rows.append(row(setting, recipe, found, len(dataset.class_names)))
            robust_so_far[setting.name, seed] = found["standing"]
            print(rows[-1], flush=True)
    print("\n| attack | seed | GFLOP an image | ms an image | seconds | clean, % | PGD-20, % | val. clean | val. PGD |")
    print("|---|---:|---:|---:|---:|---|---|---:|---:|", *rows, sep="\n")
    print("\n| A | B | seed | images robust only under A | only B | p |\n|---|---|---:|---:|---:|---:|")
    for first, second in PAIRS:
        for seed in arguments.seeds:
            if {first, second} <= {*arguments.settings}:
                a, b = robust_so_far[first, seed], robust_so_far[second, seed]
                print(f"| {first} | {second} | {seed} | {len(a - b)} | {len(b - a)} | {sign_test(a, b):.2g} |")

    for seed in arguments.seeds:
        if KEPT.name in arguments.settings:
            recipe = recipe_of(KEPT, seed, arguments)
            print_ascents(recipe, RunFolder(arguments.runs / f"{KEPT.name}-s{seed}"), dataset, teacher)


def print_ascents(recipe: Recipe, folder: RunFolder, dataset: Dataset, teacher: LoadedCheckpoint) -> None:
    """The loss that attacks reach on a trained student, cold and warm, on images as the next epoch shows them.

    It is the mean ``KL(T(x) || S(x'))`` in nats over some training images.
    """
    training, _ = training_images(dataset, recipe)
    places = np.arange(len(training))[:: max(1, len(training) // ASCENT_IMAGES)]
    variants = torch.from_numpy(choose_variants(recipe.seed, recipe.epochs, places, SIDE))
    x = apply_variants(torch.from_numpy(training.images[places]), variants)
    kept = Perturbations(len(training), x.shape[1], SIDE, recipe.threat.radius)
    kept.load_state_dict((folder.load_state() or {})["perturbations"])
    warm = project(x + kept.recall(torch.from_numpy(places), variants), x, recipe.threat)
    student = load_checkpoint(folder.last).classifier.eval()
    with torch.no_grad():
        soft = torch.cat([teacher.classifier.eval()(part) for part in torch.split(x, 32)])

    def divergence(x_adv: Tensor, index: Tensor) -> Tensor:
        return kl_divergence(soft[index], student(x_adv))

    @torch.no_grad()
    def height(x_adv: Tensor) -> float:
        return float(divergence(x_adv, torch.arange(len(x))).mean())

    def ascent_loss(steps: int, step_size: float, initial: Tensor | None) -> float:
        return height(
            ascend(
                divergence, x, recipe.threat, make_generator(recipe.seed, "climb"), steps=steps,
                step_size=step_size * recipe.threat.radius, start=recipe.attack_start,
                start_scale=recipe.attack_start_scale, initial=initial, chunk=32,
            )
        )  # fmt: skip

    print(f"\n{folder.path.name}, {len(x)} training images: nats after an attack\n")
    print("| steps | cold | warm |\n|---|---:|---:|")
    print(f"| none | {height(x):.3f} | {height(warm):.3f} |")
    for steps, size in ((1, 0.5), (1, 1.0), (2, 0.5), (2, 1.0), (4, 0.5), (10, 0.25)):
        print(
            f"| {steps} of {size:g} eps | {ascent_loss(steps, size, None):.3f} "
            f"| {ascent_loss(steps, size, warm):.3f} |",
            flush=True,
        )


def sign_test(a: set[int], b: set[int]) -> float:
    """McNemar's exact test, two-sided: how surprising the discordant images are if both students are equally robust."""
    only_a, only_b = len(a - b), len(b - a)
    return min(1.0, 2 * binomial_tail(max(only_a, only_b), only_a + only_b, 0.5))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--runs", type=Path, required=True, help="where the run folders are, one a setting and seed")
    parser.add_argument("--student", default="resnet18-0.25")
    parser.add_argument("--recipe", type=Path, default=Path(__file__).parent.parent / "recipes/rslad-small-budget.toml")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--train-samples", type=int, default=4000)
    parser.add_argument("--validation-samples", type=int, default=400)
    parser.add_argument("--eval-samples", type=int, default=2000)
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="fp32")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    """Run all settings; an interruption saves, and is an exit code."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    try:
        with stop_on_signals() as stop:
            dataset = open_dataset(DatasetSpec.parse(arguments.data), image_size=SIDE)
            loaded = read_teacher(TeacherRequest(arguments.teacher), image_size=SIDE)
            teacher = settle_open_questions(loaded, dataset, reporter=Lines("teacher"))
            print_table(arguments, dataset, teacher, stop)
    except CompressError as error:
        raise SystemExit(f"{error}\n{error.hint}") from None


if __name__ == "__main__":
    main()
