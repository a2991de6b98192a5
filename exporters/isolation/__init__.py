"""The verifier in a process of its own: bounded in memory and time, and a crash of it is an answer like any other.

What is bounded is harm by accident or by size. It is no sandbox: the child has its parent's rights, and its answer is
only as good as the parsers in it.
"""

from __future__ import annotations

from exporters.isolation.isolated import Listener, verify_isolated
from exporters.isolation.memory_limit import DEFAULT_MEMORY

__all__ = ["DEFAULT_MEMORY", "Listener", "verify_isolated"]
