"""ONNX: export, runtime, gradients of a file, the claim inside it, and the verifier.

``from exporters import verify`` is the kernel of trust: it imports nothing that trains. Its packages are the group
``verify`` of ``pyproject.toml``. ``verify_isolated`` does the same in a process of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exporters.isolation import verify_isolated
    from exporters.verification import verify

__all__ = ["verify", "verify_isolated"]


def __getattr__(name: str) -> Any:
    """Import the verifier when it is asked for: another part of this package need not wait for it."""
    if name == "verify":
        from exporters.verification import verify

        return verify
    if name == "verify_isolated":
        from exporters.isolation import verify_isolated

        return verify_isolated
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
