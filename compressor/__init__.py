"""Robust teachers, distillation, attacks. The engine knows torch, and nothing of ONNX or the terminal.

    from compressor import attack, distill, load_model, open_dataset, train

    run = distill("teacher.pt", student="mobilenetv2", data="cifar10", run="runs/a", epochs=10)
    report = attack(run.best, suite="standard")

The attacks are plain functions too: ``from compressor.attacks import apgd_ce``. Importing this package loads no torch:
a name is imported when it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compressor.api.ascending import ascend
    from compressor.api.attacking import attack
    from compressor.api.datasets import open_dataset
    from compressor.api.models import load_model
    from compressor.api.training import distill, train
    from compressor.core.reporting import Event
    from compressor.evaluation.report import Report
    from compressor.runs.run import Run

__all__ = ["Event", "Report", "Run", "ascend", "attack", "distill", "load_model", "open_dataset", "train"]

_HOMES = {
    "Event": "compressor.core.reporting",
    "Report": "compressor.evaluation.report",
    "Run": "compressor.runs.run",
    "ascend": "compressor.api.ascending",
    "attack": "compressor.api.attacking",
    "distill": "compressor.api.training",
    "load_model": "compressor.api.models",
    "open_dataset": "compressor.api.datasets",
    "train": "compressor.api.training",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, imported or not, beside what is here."""
    return sorted({*globals(), *__all__})
