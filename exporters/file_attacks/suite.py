"""The names of the suites that a file is attacked with. Reading them loads no torch."""

from __future__ import annotations

VERIFY_SUITE = "verify@1"
REPLAY_SUITE = "replay"
