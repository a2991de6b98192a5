"""What the caller requires besides that a claim holds: thresholds are met or unmet only beyond sampling error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from math import ceil, prod
from statistics import NormalDist
from typing import Any

from compressor.core.errors import UsageError
from compressor.core.types import Norm, Threat, parse_eps
from compressor.numerics.statistics import clopper_pearson
from exporters.verification.verdict import Assurance, PolicyResult, PolicyStatus

CONFIDENCE = 0.95

_ASSURANCES: tuple[Assurance, ...] = ("self-consistent", "dataset-bound", "signed")


@dataclass(frozen=True, kw_only=True)
class Policies:
    """Requirements of the caller's; None requires nothing.

    Attributes:
        min_robust_accuracy: met iff the one-sided 95 % lower bound reaches it, in [0, 1].
        min_clean_accuracy: likewise.
        require_eps: the claim's radius must be at least this, such as ``8/255``, in ``require_norm`` or else in Linf.
        require_norm: the claim's norm must be this.
        min_samples: the least number of images in the evidence.
        require_assurance: a level of assurance that must be reached.
    """

    min_robust_accuracy: float | None = None
    min_clean_accuracy: float | None = None
    require_eps: str | None = None
    require_norm: Norm | None = None
    min_samples: int | None = None
    require_assurance: Assurance | None = None

    @staticmethod
    def of(options: Mapping[str, Any]) -> Policies:
        """Those of the options of a verification that require something.

        Raises:
            UsageError: one makes no sense.
        """
        return Policies(**{one.name: options[one.name] for one in fields(Policies)})

    def __post_init__(self) -> None:
        for accuracy in (self.min_robust_accuracy, self.min_clean_accuracy):
            if accuracy is not None and not 0 <= accuracy <= 1:
                raise UsageError(f"the accuracy {accuracy} is not a fraction from 0 to 1.", "Write 0.5 for 50 %.")
        if self.require_eps is not None:
            parse_eps(self.require_eps, largest=1000)
        if self.require_norm not in (None, "Linf", "L2"):
            raise UsageError(f"the norm {self.require_norm!r} is not known.", "Use Linf or L2.")
        if self.require_assurance not in (None, *_ASSURANCES):
            raise UsageError(
                f"the assurance {self.require_assurance!r} is not known.", f"Use one of {', '.join(_ASSURANCES)}."
            )

    def required(self) -> dict[str, str]:
        """What is required, by the names of the results of :func:`apply_policies`, as text."""
        given = ((field.name.replace("_", "-"), getattr(self, field.name)) for field in fields(Policies))
        return {name: str(value) for name, value in given if value is not None}


@dataclass(frozen=True)
class FreshAttackCounts:
    """What fresh attacks measured.

    Attributes:
        robust_so_far: how many images could be attacked.
        attacked: how many of them were, m.
        broken: how many of those were broken, b.
    """

    robust_so_far: int
    attacked: int
    broken: int


def apply_policies(
    policies: Policies,
    threat: Threat,
    *,
    reached: Sequence[Assurance],
    samples: int,
    clean: int | None,
    attacked: FreshAttackCounts | None,
) -> tuple[PolicyResult, ...]:
    """Hold the measured counts against the caller's requirements.

    Args:
        policies: what is required.
        threat: what is claimed, or what was attacked under.
        reached: the levels of assurance that were reached.
        samples: n.
        clean: how many were classified correctly here; None where nobody has looked.
        attacked: what the fresh attacks measured; None where none was run.
    """
    results: list[PolicyResult] = []
    if policies.min_robust_accuracy is not None:
        results.append(_robust_threshold(policies.min_robust_accuracy, attacked, samples))
    if policies.min_clean_accuracy is not None:
        results.append(_threshold("min-clean-accuracy", policies.min_clean_accuracy, clean, samples))
    if policies.require_eps is not None:
        # The same number is a far smaller ball in another norm.
        norm = policies.require_norm or "Linf"
        met = threat.norm == norm and Fraction(threat.eps) >= Fraction(policies.require_eps)
        detail = f"the eps is {threat.eps} in {threat.norm}, required {policies.require_eps} in {norm}"
        results.append(_fact("require-eps", met, detail))
    if policies.require_norm is not None:
        met = threat.norm == policies.require_norm
        results.append(_fact("require-norm", met, f"the norm is {threat.norm}"))
    if policies.min_samples is not None:
        met = samples >= policies.min_samples
        results.append(_fact("min-samples", met, f"there are {samples} images, required {policies.min_samples}"))
    if policies.require_assurance is not None:
        met = policies.require_assurance in reached
        results.append(_fact("require-assurance", met, f"reached: {', '.join(reached)}"))
    return tuple(results)


def _robust_threshold(threshold: float, measured: FreshAttackCounts | None, n: int) -> PolicyResult:
    """Where only some robust images were attacked, the rate is a product: robust so far, and not broken when attacked.

    Each factor is bounded at half the error, so that both bounds hold together (Bonferroni).
    """
    name = "min-robust-accuracy"
    if measured is None or measured.attacked == measured.robust_so_far:
        return _threshold(name, threshold, None if measured is None else measured.robust_so_far - measured.broken, n)
    confidence = 1 - (1 - CONFIDENCE) / 2
    pairs = ((measured.robust_so_far, n), (measured.attacked - measured.broken, measured.attacked))
    lower = prod(clopper_pearson(count, total, confidence, "lower")[0] for count, total in pairs)
    upper = prod(clopper_pearson(count, total, confidence, "upper")[1] for count, total in pairs)
    figure = (
        f"{measured.robust_so_far} of {n} images are robust so far, {measured.broken} of {measured.attacked} attacked "
        f"were broken, 95 % bounds {lower:.4f} and {upper:.4f}, required {threshold:g}"
    )
    if lower >= threshold:
        return PolicyResult(name, "met", figure)
    if upper < threshold:
        return PolicyResult(name, "unmet", figure)
    return PolicyResult(name, "undecided", f"{figure}; attack all images, without --samples")


def _threshold(name: str, threshold: float, successes: int | None, n: int) -> PolicyResult:
    if successes is None or n == 0:
        return PolicyResult(name, "undecided", "nothing was measured that it could be held against")
    lower, _ = clopper_pearson(successes, n, CONFIDENCE, "lower")
    _, upper = clopper_pearson(successes, n, CONFIDENCE, "upper")
    figure = f"{successes} of {n}, 95 % bounds {lower:.4f} and {upper:.4f}, required {threshold:g}"
    if lower >= threshold:
        return PolicyResult(name, "met", figure)
    if upper < threshold:
        return PolicyResult(name, "unmet", figure)
    needed = _images_needed(successes / n, threshold)
    return PolicyResult(name, "undecided", f"{figure}; more images needed: {needed}")


def _images_needed(rate: float, threshold: float) -> str:
    """About how many images would tell the rate from the threshold, by the normal approximation."""
    gap = abs(rate - threshold)
    if gap < 1e-3:
        return "more than can be had"
    z = NormalDist().inv_cdf(CONFIDENCE)
    return f"about {max(ceil(z * z * rate * (1 - rate) / gap**2), ceil(3 / gap))}"


def _fact(name: str, met: bool, detail: str) -> PolicyResult:
    status: PolicyStatus = "met" if met else "unmet"
    return PolicyResult(name, status, detail)
