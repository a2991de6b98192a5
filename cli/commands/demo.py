"""``compress demo``: the whole way on handwritten digits, from nothing to a verified ONNX file, in a few minutes."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cli.options import common as options
from cli.options.declaring import option
from cli.options.shared_options import OutputOptions
from cli.output.console import Output
from compressor.core.notebook import percent

if TYPE_CHECKING:
    from compressor.api.planning import TrainingRequest
    from compressor.evaluation.quick import QuickAccuracy
    from compressor.runs.run import Run
    from compressor.system.interruption import StopRequest
    from compressor.training.teacher_file import TeacherRequest

EPS = "0.1"
TEACHER = "resnet18-0.25"
STUDENT = "mobilenetv2-0.25"
EVIDENCE_SAMPLES = 128
EVAL_SAMPLES = 200
PGD_STEPS = 20


@dataclass(frozen=True)
class _Part:
    """One training of the demo; the settings are what reaches far in a minute on two cores."""

    method: str
    model: str
    settings: dict[str, Any]


_COMMON = {"eps": EPS, "seed": 0, "batch_size": 32, "attack_steps": 5, "nesterov": True, "validation_samples": 64}
_TEACHER = _Part("sat", TEACHER, _COMMON | {"epochs": 5, "learning_rate": 0.05})
_STUDENT = _Part("rslad", STUDENT, _COMMON | {"epochs": 7, "learning_rate": 0.5})
_TWIN = _Part("natural", STUDENT, _COMMON | {"epochs": 7, "learning_rate": 0.05})


def demo(
    printing: OutputOptions,
    run: Annotated[Path, option("DIR", "Folder of the demo's runs.")] = Path("runs/demo"),
    device: options.Device = "auto",
    threads: options.Threads = None,
) -> int:
    """Train a teacher on digits, distil it, and verify the exported file; started again, it goes on."""
    from cli.output.tables import steps_of
    from compressor.system.interruption import stop_on_signals
    from compressor.training.teacher_file import TeacherRequest
    from exporters.pipeline.distillation import AfterTraining, distill_and_verify

    settings: dict[str, Any] = {"data": "digits", "device": device, "threads": threads, "resume": True}
    with printing.open() as output, stop_on_signals() as stop:
        output.note(
            f"handwritten digits, attacked by up to {EPS} of the pixel range: at 8/255 even a natural model holds"
        )
        teacher = _train(_TEACHER, run / "teacher", settings, output, stop)
        twin = _train(_TWIN, run / "natural-twin", settings, output, stop)
        request = _request(_STUDENT, run / "student", settings, TeacherRequest(teacher.best))
        after = AfterTraining(eval_samples=EVAL_SAMPLES, evidence_samples=EVIDENCE_SAMPLES)
        done = distill_and_verify(request, after, steps_of(output, stop))
        if done is None:
            return 0
        output.phase(f"Attacking teacher, student and twin with PGD-{PGD_STEPS} on {EVAL_SAMPLES} test digits")
        baseline = _measure(twin, device)
        measured = {
            f"robust teacher ({TEACHER}, SAT)": _measure(teacher, device),
            f"student ({STUDENT}, RSLAD)": _measure(done.run, device),
            f"its natural twin ({STUDENT})": baseline,
        }
        output.table(
            f"accuracy on the test digits, Linf {EPS}",
            ["model", "clean", f"PGD-{PGD_STEPS}", "images"],
            [(name, percent(m.clean), percent(m.robust), str(m.samples)) for name, m in measured.items()],
        )
        fields = {"clean_accuracy": baseline.clean, f"pgd_{PGD_STEPS}_accuracy": baseline.robust}
        output.json("compress.demo/1", done.to_json() | {"baseline": fields})
        output.line(shlex.join(["compress", "verify", str(done.run.folder.onnx)]))
    return done.verdict.exit_code


def _request(part: _Part, run: Path, settings: dict[str, Any], teacher: TeacherRequest | None) -> TrainingRequest:
    from compressor.api.training import make_request

    return make_request(
        model=part.model, method=part.method, teacher=teacher, run=run, recipe=part.settings, **settings
    )


def _train(part: _Part, folder: Path, settings: dict[str, Any], output: Output, stop: StopRequest) -> Run:
    from compressor.api.planning import plan_training, train_run

    config = plan_training(_request(part, folder, settings, None), output, splits=("train", "test"))
    return train_run(config, None, reporter=output, stop=stop)


def _measure(run: Run, device_name: str) -> QuickAccuracy:
    """Clean and PGD accuracy of a run's best checkpoint on the same test digits for all."""
    import torch

    from compressor.checkpoint import load_checkpoint
    from compressor.data.datasets import take_balanced
    from compressor.evaluation.quick import measure
    from compressor.system.devices import resolve_device

    test, device = take_balanced(run.dataset.load("test"), EVAL_SAMPLES, seed=0), resolve_device(device_name)
    return measure(
        load_checkpoint(run.best).classifier.to(device).to(memory_format=torch.channels_last),
        torch.from_numpy(test.images),
        torch.from_numpy(test.labels),
        run.recipe.threat,
        steps=PGD_STEPS,
        seed=0,
        device=device,
    )
