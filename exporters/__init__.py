"""ONNX: export a classifier with a claim of its robustness, inspect a file, and try to refute what it claims.

``from exporters import export, inspect, verify`` costs no torch and no onnxruntime: each is loaded when it is called
for. ``verify`` is the kernel of trust: it imports nothing that trains. Its packages are the group ``verify`` of
``pyproject.toml``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exporters.api.export import export
    from exporters.api.inspect import Inspection, inspect
    from exporters.api.manifest import write_manifest
    from exporters.api.verify import verify
    from exporters.artifact.artifact import Artifact
    from exporters.verification.verdict import Verdict

__all__ = ["Artifact", "Inspection", "Verdict", "export", "inspect", "verify", "write_manifest"]

_HOMES = {
    "Artifact": "exporters.artifact.artifact",
    "Inspection": "exporters.api.inspect",
    "Verdict": "exporters.verification.verdict",
    "export": "exporters.api.export",
    "inspect": "exporters.api.inspect",
    "verify": "exporters.api.verify",
    "write_manifest": "exporters.api.manifest",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, and only that."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, for completion in a shell or notebook."""
    return sorted(__all__)
