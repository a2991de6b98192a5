"""The verifier: whether what an ONNX file claims of itself can be refuted, by anyone who holds it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exporters.verification.examination import examine
    from exporters.verification.failures import write_failures
    from exporters.verification.policies import Policies
    from exporters.verification.request import Request, Watcher
    from exporters.verification.verdict import BrokenImage, Check, PolicyResult, Verdict

__all__ = [
    "BrokenImage",
    "Check",
    "Policies",
    "PolicyResult",
    "Request",
    "Verdict",
    "Watcher",
    "examine",
    "write_failures",
]

_HOME = {
    "examine": "examination",
    "write_failures": "failures",
    "Policies": "policies",
    **dict.fromkeys(("Request", "Watcher"), "request"),
    **dict.fromkeys(("BrokenImage", "Check", "PolicyResult", "Verdict"), "verdict"),
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: a process that leaves the examination to another loads neither torch nor a runtime."""
    if name in _HOME:
        return getattr(import_module(f"exporters.verification.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
