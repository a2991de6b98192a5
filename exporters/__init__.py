"""ONNX: export, runtime, gradients of a file, the claim inside it, and the verifier.

``from exporters import verify`` is the kernel of trust: it imports nothing that trains. Its packages are the group
``verify`` of ``pyproject.toml``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exporters.verification import verify

__all__ = ["verify"]


def __getattr__(name: str) -> Any:
    """Import the verifier when it is asked for: whoever wants another part of this package need not wait for it."""
    if name == "verify":
        from exporters.verification import verify

        return verify
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
