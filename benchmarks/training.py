"""RSLAD training, ours against the plain loop: images a second, interleaved, and peak memory.

python benchmarks/training.py [--students resnet18 mobilenetv2] [--rounds 3] [--teacher wideresnet-34-10] [--batch 128]

Each loop runs in a process of its own, so that each has a peak memory of its own, and they step in turns: only one of
them computes at a time. Ours is the product's own ``train``, stopped at each step: once with an empty label cache
(cold) and once with one that has every answer (warm). The last line is JSON: student -> ratios to the plain loop.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

CLASSES, SIDE = 10, 32


def plain(link: Connection, settings: dict[str, Any]) -> None:
    """Serve steps of the plain loop."""
    import torch

    from benchmarks import plain_loop
    from compressor.checkpoint import load_checkpoint
    from compressor.core.types import ModelSpec
    from compressor.models.classifier import build_classifier

    torch.set_num_threads(settings["threads"])
    student = build_classifier(ModelSpec(settings["student"], CLASSES), seed=0)
    teacher = load_checkpoint(Path(settings["teacher"])).classifier.eval().requires_grad_(False)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, weight_decay=2e-4)
    link.send("ready")
    for seed in range(settings["rounds"]):
        link.recv()
        x = torch.rand(settings["batch"], 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
        started = time.perf_counter()
        plain_loop.step(student, teacher, optimizer, x)
        link.send({"seconds": time.perf_counter() - started})
    link.recv()
    link.send({"memory": peak_memory()})


def ours(link: Connection, settings: dict[str, Any]) -> None:
    """Serve steps of the product's loop."""
    import torch

    torch.set_num_threads(settings["threads"])
    with tempfile.TemporaryDirectory() as folder:
        os.environ["COMPRESS_CACHE_DIR"] = str(Path(folder) / "cache")
        _train(link, settings, Path(folder))
    link.send({"memory": peak_memory()})


def _train(link: Connection, settings: dict[str, Any], folder: Path) -> None:
    import torch

    from benchmarks.noise import Noise, full_label_cache
    from compressor.checkpoint import load_checkpoint
    from compressor.core.reporting import SilentReporter
    from compressor.runs.recipe import resolve
    from compressor.runs.run_folder import RunFolder
    from compressor.system.interruption import StopRequest
    from compressor.training import session

    class Turns(SilentReporter):
        """Lets the loop make one step at a time, and times it from our turn to the step's end."""

        started = waited = 0.0

        def phase(self, title: str) -> None:
            if title.startswith("Training"):
                link.send("ready")
                self.wait()
                self.waited = 0.0  # before the watch began

        def wait(self) -> None:
            before = time.perf_counter()
            link.recv()
            self.started = time.perf_counter()
            self.waited += self.started - before

        def advance(self, done: int, total: int, detail: str = "") -> None:
            link.send({"seconds": time.perf_counter() - self.started})
            self.wait()  # after the last step too: what follows it must not fall into another's turn

        def note(self, text: str) -> None:
            link.send({"note": text})

    teacher = load_checkpoint(Path(settings["teacher"]))
    recipe = resolve("rslad", settings["student"], None, {"epochs": 1, "batch_size": settings["batch"]})
    noise = Noise(settings["rounds"] * settings["batch"])
    request = session.RunConfig(recipe, noise, RunFolder(folder / "run"), torch.device("cpu"))
    turns = Turns()
    with full_label_cache() if settings["warm"] else nullcontext():
        session.train(request, teacher, reporter=turns, stop=StopRequest())
    timing = json.loads((folder / "run" / "timings.jsonl").read_text().splitlines()[0])
    timing["parts"]["logging"] -= turns.waited  # the others' turns
    link.send({"parts": timing["parts"], "choices": json.loads((folder / "run" / "choices.json").read_text())})


def peak_memory() -> int:
    """The most this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Worker:
    """A loop in a process of its own, which waits for its turn."""

    def __init__(self, kind: str, settings: dict[str, Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self._link, theirs = context.Pipe()
        target = plain if kind == "plain" else ours
        self._process = context.Process(target=target, args=(theirs, settings | {"warm": kind == "warm"}))
        self._process.start()
        theirs.close()
        self.facts: dict[str, Any] = {}
        self._until("ready")

    def step(self) -> float:
        """Let it make a step; returns its seconds."""
        self._link.send("go")
        seconds: float = self._until("seconds")
        return seconds

    def finish(self) -> dict[str, Any]:
        """Let it end; returns what it reported of itself."""
        self._link.send("go")
        self._until("memory")
        self._process.join()
        return self.facts

    def _until(self, wanted: str) -> Any:
        while True:
            message = self._link.recv()
            if message == wanted:
                return None
            if isinstance(message, dict):
                self.facts |= message
                if wanted in message:
                    return message[wanted]


def measured_peak(bf16: bool) -> float:
    """Operations a second of a large matrix product."""
    import torch

    side = 4096
    a, b = (torch.randn(side, side).to(torch.bfloat16 if bf16 else torch.float32) for _ in range(2))
    times = []
    for _ in range(4):
        started = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - started)
    return 2 * side**3 / min(times)


def cost_table(student: str, teacher: str, facts: dict[str, Any], images: int, peaks: dict[str, float]) -> None:
    """Counted operations beside measured time and the machine's peak, for the cold loop."""
    from compressor.core.registry import METHODS
    from compressor.core.types import ModelSpec
    from compressor.models.classifier import build_classifier
    from compressor.models.costs import step_cost

    networks = (build_classifier(ModelSpec(name, CLASSES), seed=0) for name in (student, teacher))
    cost = step_cost(METHODS.get("rslad")(), *networks, image_size=SIDE, attack_steps=10)
    precisions = {"teacher": facts["choices"]["teacher"], "attack": facts["choices"]["twin"], "outer": "fp32"}
    print(f"\n| {student}: part | GFLOP an image | precision | ms an image | GFLOP/s | of the peak |")
    print("|---|---:|---|---:|---:|---:|")
    total = sum(facts["parts"].values())
    for part, seconds in facts["parts"].items():
        count = getattr(cost, part, 0) / 1e9
        ms = 1e3 * seconds / images
        if count:
            rate = count / ms * 1e3
            peak = f"{rate * 1e9 / peaks[precisions[part]]:.0%}"
            print(f"| {part} | {count:.2f} | {precisions[part]} | {ms:.2f} | {rate:.0f} | {peak} |")
        else:
            print(f"| {part} | | | {ms:.2f} | | {seconds / total:.2%} of the step |")


@contextmanager
def _importable() -> Iterator[None]:
    """Let spawned processes import this package and the yardstick, wherever they start."""
    root = str(Path(__file__).resolve().parent.parent)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = root if before is None else f"{root}{os.pathsep}{before}"
    sys.path.insert(0, root)
    yield


def main() -> None:
    """Print what was measured, and the ratios as JSON on the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", nargs="+", default=["resnet18", "mobilenetv2"])
    parser.add_argument("--teacher", default="wideresnet-34-10")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with _importable(), tempfile.TemporaryDirectory() as folder:
        teacher = Path(folder) / "teacher.safetensors"
        peaks, threads = prepare(arguments.teacher, teacher)
        ratios = {}
        for student in arguments.students:
            settings = {
                "student": student, "teacher": str(teacher), "batch": arguments.batch,
                "rounds": arguments.rounds, "threads": threads,
            }  # fmt: skip
            ratios[student], facts = race(settings)
            cost_table(student, arguments.teacher, facts, arguments.rounds * arguments.batch, peaks)
        print(json.dumps(ratios))


def prepare(name: str, path: Path) -> tuple[dict[str, float], int]:
    """Save a teacher of random weights, and measure the machine; returns its peaks and its threads."""
    import torch

    from compressor.checkpoint import save_checkpoint
    from compressor.core.types import ModelSpec
    from compressor.models.classifier import build_classifier
    from compressor.system.threads import available_threads

    threads = available_threads()
    torch.set_num_threads(threads)
    save_checkpoint(path, build_classifier(ModelSpec(name, CLASSES), seed=1), {})
    peaks = {"fp32": measured_peak(bf16=False), "bf16": measured_peak(bf16=True)}
    print(f"torch {torch.__version__}, {threads} threads, {torch.backends.cpu.get_cpu_capability()}")
    print("matrix product: " + ", ".join(f"{name} {peak / 1e9:.0f} GFLOP/s" for name, peak in peaks.items()))
    return peaks, threads


def race(settings: dict[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """Let the three loops step in turns; returns the ratios, and what the cold one reported."""
    student, rounds = settings["student"], settings["rounds"]
    workers = {kind: Worker(kind, settings) for kind in ("plain", "cold", "warm")}
    seconds: dict[str, list[float]] = {kind: [] for kind in workers}
    for number in range(rounds):
        for kind, worker in workers.items():
            seconds[kind].append(worker.step())
        shown = ", ".join(f"{kind} {times[-1]:.2f} s" for kind, times in seconds.items())
        pair = ", ".join(f"{kind} x{seconds['plain'][-1] / seconds[kind][-1]:.2f}" for kind in ("cold", "warm"))
        print(f"{student}, round {number + 1}: {shown}; {pair}", flush=True)
    facts = {kind: worker.finish() for kind, worker in workers.items()}
    ratios = {
        kind: round(statistics.median(p / o for p, o in zip(seconds["plain"], seconds[kind], strict=True)), 2)
        for kind in ("cold", "warm")
    } | {"memory": round(max(facts[k]["memory"] for k in ("cold", "warm")) / facts["plain"]["memory"], 2)}
    rates = ", ".join(f"{k} {settings['batch'] / statistics.median(t):.2f} images/s" for k, t in seconds.items())
    memory = ", ".join(f"{kind} {fact['memory'] / 1e9:.2f} GB" for kind, fact in facts.items())
    print(f"{student}: {rates}; memory {memory}; chosen {facts['cold']['choices']}", flush=True)
    return ratios, facts["cold"]


if __name__ == "__main__":
    main()
