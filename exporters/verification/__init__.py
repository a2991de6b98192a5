"""The verifier: whether what an ONNX file claims of itself can be refuted, by anyone who holds it."""

from __future__ import annotations

from exporters.verification.examination import verify
from exporters.verification.failures import write_failures
from exporters.verification.policies import Policies
from exporters.verification.request import HeldData
from exporters.verification.verdict import Broken, Check, PolicyResult, Verdict

__all__ = ["Broken", "Check", "HeldData", "Policies", "PolicyResult", "Verdict", "verify", "write_failures"]
