"""``compress doctor``: what is installed, what the machine offers, and what is missing."""

from __future__ import annotations

import importlib
import platform
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

from cli.options.shared_options import OutputOptions
from compressor.core.errors import DONE, FAILED
from compressor.version import __version__

_NEEDED = ("torch", "torchvision", "numpy", "onnx", "onnxscript", "accelerate", "safetensors", "pyautoattack")
_OPTIONAL = {
    "sklearn": ("scikit-learn", "the demo and --data digits: pip install 'robust-compress[demo]'"),
    "matplotlib": ("matplotlib", "`compress attack --report`: pip install 'robust-compress[figures]'"),
    "timm": ("timm", "models timm:NAME: pip install 'robust-compress[timm]'"),
}

Status = Literal["ok", "missing", "problem", "absent"]


@dataclass(frozen=True)
class DoctorFinding:
    """One line of the report; ``missing`` and ``problem`` keep the program from working."""

    name: str
    status: Status
    detail: str


def doctor(
    printing: OutputOptions,
) -> int:
    """Show versions, devices and providers, and what is missing."""
    findings = [
        DoctorFinding("compress", "ok", __version__),
        DoctorFinding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        *(_package(name) for name in _NEEDED),
        _onnxruntime(),
        *_optional(),
        *_devices(),
    ]
    bad = [finding for finding in findings if finding.status in ("missing", "problem")]
    with printing.open() as output:
        rows = [(finding.name, finding.status, finding.detail) for finding in findings]
        output.table("compress doctor", ["what", "status", "detail"], rows, figures=False)
        output.line("Everything needed is here." if not bad else f"{len(bad)} thing(s) need attention.")
        fields = {"findings": [vars(finding) for finding in findings], "healthy": not bad}
        output.json("compress.doctor/1", fields)
    return FAILED if bad else DONE


def _package(name: str) -> DoctorFinding:
    try:
        importlib.import_module(name)
    except (ImportError, OSError) as error:  # a broken CUDA library raises OSError
        return DoctorFinding(name, "missing", f"{error}")
    return DoctorFinding(name, "ok", _version(name))


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown version"


def _onnxruntime() -> DoctorFinding:
    """Both builds of onnxruntime fill one folder, so installing both leaves a mixture of the two."""
    installed = [name for name in ("onnxruntime", "onnxruntime-gpu") if _version(name) != "unknown version"]
    if len(installed) == 2:
        detail = (
            "both onnxruntime and onnxruntime-gpu are installed, and overwrite each other: uninstall both, keep one"
        )
        return DoctorFinding("onnxruntime", "problem", detail)
    try:
        import onnxruntime
    except (ImportError, OSError) as error:
        return DoctorFinding("onnxruntime", "missing", f"{error}")
    providers = ", ".join(onnxruntime.get_available_providers())
    return DoctorFinding(
        "onnxruntime", "ok", f"{onnxruntime.__version__} ({' '.join(installed)}); providers: {providers}"
    )


def _optional() -> list[DoctorFinding]:
    findings = []
    for module, (distribution, purpose) in _OPTIONAL.items():
        found = importlib.util.find_spec(module) is not None
        findings.append(
            DoctorFinding(distribution, "ok" if found else "absent", _version(distribution) if found else purpose)
        )
    return findings


def _devices() -> list[DoctorFinding]:
    try:
        import torch

        from compressor.system.threads import available_threads
    except (ImportError, OSError):
        return []
    findings = [DoctorFinding("cpu", "ok", f"{available_threads()} threads; {torch.backends.cpu.get_cpu_capability()}")]
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        findings += [DoctorFinding(f"cuda:{number}", "ok", name) for number, name in enumerate(names)]
    else:
        built = f"PyTorch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "PyTorch is a CPU build"
        findings.append(DoctorFinding("cuda", "absent", f"no CUDA device; {built}"))
    if torch.backends.mps.is_available():
        findings.append(DoctorFinding("mps", "ok", "Apple GPU"))
    return findings
