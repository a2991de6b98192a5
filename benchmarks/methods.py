"""What a training step of each method costs: counted operations, and time against RSLAD's, interleaved.

python benchmarks/methods.py [--student resnet18-0.25] [--teacher wideresnet-16-4] [--batch 128] [--steps 4]

Each round runs every method once, in the product's own ``train`` without a label cache and with fresh weights; a step's
time is the median over the steps after the first, a method's the median over rounds, and its ratio the median of the
rounds' ratios. The last line is JSON: method -> ratio to RSLAD.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

CLASSES, SIDE = 10, 32


def main() -> None:
    """Run the rounds and print the table."""
    arguments = _arguments()
    from compressor.core.registry import METHODS

    names = sorted(METHODS.members())
    rounds: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["COMPRESS_CACHE_DIR"] = str(Path(folder) / "cache")
        teacher = _teacher(arguments.teacher, Path(folder) / "teacher.safetensors")
        for number in range(arguments.rounds):
            rounds.append({})
            for name in names:
                run = Path(folder) / f"{name}-{number}"
                rounds[-1][name] = _seconds_of_a_step(name, teacher, run, number, arguments)
    ratios = {name: statistics.median(r[name] / r["rslad"] for r in rounds) for name in names}
    costs = {name: _operations(name, arguments) for name in names}
    print("| method | teacher | attack | outer | all | seconds a step | to RSLAD |")
    print("|---|---|---|---|---|---|---|")
    for name in sorted(names, key=ratios.__getitem__):
        cost = costs[name]
        parts = (cost.teacher, cost.attack, cost.outer, cost.teacher + cost.attack + cost.outer)
        counted = " | ".join(f"{part / 1e9:.2f}" for part in parts)
        seconds = statistics.median(r[name] for r in rounds)
        print(f"| {name} | {counted} | {seconds:.2f} | {ratios[name]:.2f} |")
    print(json.dumps({name: round(ratio, 3) for name, ratio in ratios.items()}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", default="resnet18-0.25")
    parser.add_argument("--teacher", default="wideresnet-16-4")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def _teacher(name: str, path: Path) -> Any:
    from compressor.checkpoint import load_checkpoint, save_checkpoint
    from compressor.core.types import ModelSpec
    from compressor.models.classifier import build_classifier

    save_checkpoint(path, build_classifier(ModelSpec(name, CLASSES), seed=1), {})
    return load_checkpoint(path)


def _seconds_of_a_step(name: str, teacher: Any, run: Path, number: int, arguments: argparse.Namespace) -> float:
    """Train for a few steps on noise; each round has other images."""
    import numpy as np
    import torch

    from compressor.core.contracts import Split, SplitName
    from compressor.core.reporting import SilentReporter
    from compressor.runs.recipe import resolve
    from compressor.runs.run_folder import RunFolder
    from compressor.system.interruption import StopRequest
    from compressor.training.configuration import RunConfig
    from compressor.training.session import train

    class Noise:
        name, class_names, image_size = f"noise-{number}", tuple(map(str, range(CLASSES))), SIDE

        def has(self, split: SplitName) -> bool:
            return True

        def load(self, split: SplitName) -> Split:
            n = (arguments.steps + 1) * arguments.batch if split == "train" else CLASSES
            images = np.random.default_rng(number).integers(0, 256, (n, 3, SIDE, SIDE), dtype=np.uint8)
            return Split(images, np.arange(n) % CLASSES)

    class Clock(SilentReporter):
        def __init__(self) -> None:
            self.marks: list[float] = []

        def advance(self, done: int, total: int, detail: str = "") -> None:
            self.marks.append(time.perf_counter())

    settings = {"epochs": 1, "batch_size": arguments.batch, "precision": "bf16", "learning_rate": 0.001}
    # IAD's second term is part of what it costs for most of a run.
    settings |= {"method_settings": {"begin": 0.0}} if name == "iad" else {}
    recipe = resolve(name, arguments.student, None, settings)
    given = teacher if recipe.build_method().teacher_at != "nothing" else None
    clock = Clock()
    # No label cache: a round's methods see the same images, and the first would answer for the others.
    request = RunConfig(recipe, Noise(), RunFolder(run), torch.device("cpu"), label_cache_limit=0)
    train(request, given, reporter=clock, stop=StopRequest())
    steps = [after - before for before, after in zip(clock.marks, clock.marks[1:], strict=False)]
    return statistics.median(steps[: arguments.steps])


def _operations(name: str, arguments: argparse.Namespace) -> Any:
    from compressor.core.registry import METHODS
    from compressor.core.types import ModelSpec
    from compressor.models.classifier import build_classifier
    from compressor.models.costs import step_cost

    student, teacher = (build_classifier(ModelSpec(n, CLASSES), seed=0) for n in (arguments.student, arguments.teacher))
    return step_cost(METHODS.get(name)(), student, teacher, image_size=SIDE, attack_steps=10)


if __name__ == "__main__":
    main()
