"""What a verification found: one answer, the checks it rests on, and an exit code that cannot disagree with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from compressor.core.errors import DONE, FAILED, UNDECIDED
from compressor.core.notebook import html_table, percent
from compressor.core.types import Threat
from compressor.numerics.statistics import clopper_pearson, wilson_interval

if TYPE_CHECKING:
    from exporters.claim.evidence import Bytes, Floats

SCHEMA = "compress.verify/1"

Answer = Literal["holds", "violated", "undecided"]
Assurance = Literal["self-consistent", "dataset-bound", "signed"]
Status = Literal["passed", "failed", "undecided", "skipped"]
PolicyStatus = Literal["met", "unmet", "undecided"]

OF_POLICY: dict[PolicyStatus, Status] = {"met": "passed", "unmet": "failed", "undecided": "undecided"}
"""What a policy's status is as that of a check."""

NOT_DECIDED = "It could not be decided whether the claim holds."
MORE_MEMORY = "The file asks for more memory than this process may have: allow more with --memory-limit SIZE."


@dataclass(frozen=True)
class Check:
    """One step of the protocol: ``failed`` proves a violation, ``undecided`` rules out that the claim holds.

    Attributes:
        name: the step.
        status: how it ended.
        detail: what was found, in a sentence with its counts.
        cause: what most likely lies behind a step that did not pass.
    """

    name: str
    status: Status
    detail: str
    cause: str = ""


@dataclass(frozen=True)
class PolicyResult:
    """One requirement of the caller's, and whether the figures meet it."""

    name: str
    status: PolicyStatus
    detail: str


@dataclass(frozen=True, eq=False)
class BrokenImage:
    """An image that was claimed robust, and the picture in its ball that the file gets wrong.

    Attributes:
        index: its position in the evidence.
        label: the right class.
        predicted: what the file answers.
        natural: uint8 ``[C, H, W]``.
        adversarial: float32 ``[C, H, W]``.
        attack: which attack found it.
    """

    index: int
    label: int
    predicted: int
    natural: Bytes
    adversarial: Floats
    attack: str


@dataclass(frozen=True)
class Verdict:
    """The outcome of a verification; ``to_json`` is its public form.

    Attributes:
        answer: ``holds``, ``violated`` or ``undecided``.
        reached: what the caller's own inputs add to the two files: the levels of assurance, the highest last.
        summary: one sentence for a person.
        samples: n, the images of the evidence; 0 where it could not be read.
        clean: c as measured here; None where it was not.
        robust: k less what was broken here, or as claimed in a replay; None where the attacks did not end.
        broken: b, the images robust so far that the fresh attacks broke.
        attacked: m, the images robust so far that they were run on.
        attacks: how many each attack broke, in the order they ran.
        alarms: signs that the attacks failed because of masked gradients.
        checks: every step, in order.
        policy: the caller's requirements.
        claim: the claim as JSON, once it could be read.
        threat: what was attacked under: the claim's, or without one the caller's; None where neither is known.
        suite: the attacks that were run.
        seed: the fresh seed, for repeating the run.
        command: repeats the run.
        model_sha256: of the bytes of the model file that were examined; None where it could not be read.
        evidence_sha256: likewise of the evidence file.
        failures: the images that were broken; not part of the JSON.
        measured_on: of a file without a claim, the images and how they were presented; None where a claim says it.
    """

    answer: Answer
    reached: tuple[Assurance, ...]
    summary: str
    samples: int
    clean: int | None
    robust: int | None
    broken: int
    attacked: int
    attacks: dict[str, int]
    alarms: tuple[str, ...]
    checks: tuple[Check, ...]
    policy: tuple[PolicyResult, ...]
    claim: dict[str, Any] | None
    threat: Threat | None
    suite: str
    seed: int
    command: str
    model_sha256: str | None = None
    evidence_sha256: str | None = None
    failures: tuple[BrokenImage, ...] = field(default=(), repr=False, compare=False)
    measured_on: dict[str, Any] | None = None

    @property
    def assurance(self) -> Assurance:
        """The highest level that was reached."""
        return self.reached[-1]

    @property
    def exit_code(self) -> int:
        """0 only if the claim holds on at least one image and every policy is met."""
        if self.answer == "violated":
            return FAILED
        if self.answer != "holds" or self.samples < 1 or any(check.status == "undecided" for check in self.checks):
            return UNDECIDED
        if any(check.status == "failed" for check in self.checks):
            return FAILED
        states = {result.status for result in self.policy}
        return FAILED if "unmet" in states else UNDECIDED if "undecided" in states else DONE

    @property
    def first_problem(self) -> Check | None:
        """What first failed or, where nothing did, what first could not be decided: a check, else a policy."""
        policies = [Check(f"policy {one.name}", OF_POLICY[one.status], one.detail) for one in self.policy]
        for cases in (self.checks, policies):
            for status in ("failed", "undecided"):
                for check in cases:
                    if check.status == status:
                        return check
        return None

    def _share(self, count: int | None) -> float | None:
        return count / self.samples if self.samples and count is not None else None

    def to_json(self) -> dict[str, Any]:
        """The object that ``compress verify --json`` prints."""
        problem = self.first_problem
        return {
            "schema": SCHEMA,
            "verdict": self.answer,
            "assurance": self.assurance,
            "assurances": list(self.reached),
            "summary": self.summary,
            "samples": self.samples,
            "clean_accuracy": self._share(self.clean),
            "robust_accuracy": self._share(self.robust),
            "robust_interval": list(wilson_interval(self.robust, self.samples))
            if self.samples and self.robust is not None
            else None,
            "broken": self.broken,
            "attacked": self.attacked,
            "attacks": self.attacks,
            "alarms": list(self.alarms),
            "checks": [{"name": check.name, "status": check.status, "detail": check.detail} for check in self.checks],
            "policy": [vars(result).copy() for result in self.policy],
            "claim": self.claim,
            "eps": self.threat.eps if self.threat else None,
            "norm": self.threat.norm if self.threat else None,
            "measured_on": self.measured_on,
            "sha256": self.model_sha256,
            "suite": self.suite,
            "seed": self.seed,
            "failure": None
            if problem is None
            else {"check": problem.name, "detail": problem.detail, "cause": problem.cause, "command": self.command},
            "exit_code": self.exit_code,
        }

    def _repr_html_(self) -> str:
        """Return the checks and policies as a table, with the figures and the answer below, for a notebook."""
        rows: list[tuple[str, str, str]] = [
            (check.name, check.status, f"{check.detail}. {check.cause}".rstrip(". ")) for check in self.checks
        ]
        rows += [(f"policy {result.name}", result.status, result.detail) for result in self.policy]
        notes = [self.summary]
        if self.samples and self.clean is not None and self.robust is not None:
            low, high = clopper_pearson(self.robust, self.samples)
            notes.insert(
                0,
                f"Clean accuracy {percent(self.clean / self.samples)}, robust accuracy "
                f"{percent(self.robust / self.samples)} of {self.samples} images (95 % interval of the population "
                f"{percent(low)} to {percent(high)}).",
            )
        title = f"{self.answer.upper()} ({self.assurance}), exit code {self.exit_code}"
        return html_table(title, ("check", "result", "what was found"), rows, notes)
