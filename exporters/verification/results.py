"""What the steps of the protocol find: one kind of frozen result for each question that later steps ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from compressor.core.types import Threat
from exporters.claim.evidence import Floats, Integers, to_float_array
from exporters.file_attacks.attacks import AttackOutcome
from exporters.verification.verdict import BrokenImage, Check

if TYPE_CHECKING:
    import onnx

    from exporters.claim.claim import Claim
    from exporters.claim.evidence import Bytes, DigestEvidence, Evidence
    from exporters.file_attacks.gradients import Gradients
    from exporters.file_attacks.target import Target
    from exporters.model_file.runtime import Session
    from exporters.model_file.structure import CheckedModel
    from exporters.verification.verifier_data import EvidenceDraw


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """What one step found.

    Attributes:
        replaces: kinds of earlier results that this one takes the place of; they have no checks.
        checks: for the verdict, in order.
        ends: whether the answer is settled, so that no other step has anything to add.
    """

    replaces: ClassVar[tuple[type[Result], ...]] = ()

    checks: tuple[Check, ...] = ()
    ends: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class FileRead(Result):
    """The model file, whose structure is safe, with its bytes and their SHA-256."""

    checked: CheckedModel
    sha256: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Signed(Result):
    """Whether the file was signed by the caller's key."""

    by_the_key: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Opened(Result):
    """The file in a session, in place of its bytes, which may be large.

    Attributes:
        model: its message.
        sha256: of its bytes.
        session: it, open.
        is_canonical: whether its bytes are those that the export writes for this message.
        makes_claim: whether it says anything of its robustness, readable or not.
    """

    replaces = (FileRead,)

    model: onnx.ModelProto
    sha256: str
    session: Session
    is_canonical: bool
    makes_claim: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Claimed(Result):
    """What the file claims."""

    claim: Claim


@dataclass(frozen=True, kw_only=True, eq=False)
class Chosen(Result):
    """Which attacks are run; of a file without a claim, the ball in which they are."""

    suite: str
    threat: Threat | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class EvidenceRead(Result):
    """The evidence, not yet compared with the claim, and the SHA-256 of its bytes; None if it cannot be used."""

    sha256: str
    evidence: Evidence | DigestEvidence | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Bound(Result):
    """What the caller's own data say of the images.

    Attributes:
        draw: the draw of the caller's dataset, where it is the one that is examined.
        samples: how many images are drawn for a file that brings none; None where the evidence says.
        to_a_dataset: whether the images are a draw of a dataset that the caller holds or has a manifest of.
        measured_on: of a file without a claim, the images and how they were presented.
    """

    draw: EvidenceDraw | None = None
    samples: int | None = None
    to_a_dataset: bool = False
    measured_on: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class ExaminedImages(Result):
    """What the file is tried on.

    Attributes:
        images: uint8 ``[n, C, H, W]``.
        labels: int64 ``[n]``.
        threat: the ball around each.
        target: the open file with its tolerances.
        evidence: what is recorded of them; None for images of the caller's dataset.
    """

    images: Bytes
    labels: Integers
    threat: Threat
    target: Target
    evidence: Evidence | None = None

    def natural(self) -> Floats:
        """The images as the model takes them: float32 ``[n, C, H, W]``."""
        return to_float_array(self.images)


@dataclass(frozen=True, kw_only=True, eq=False)
class Classified(Result):
    """The unattacked images.

    Attributes:
        clean: how many the file classifies correctly here.
        attackable: int64 ``[k]``: positions of those that can be attacked; None where the step ended before.
    """

    clean: int
    attackable: Integers | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class GradientsOpened(Result):
    """The gradients of the file; None where only black-box attacks can be run."""

    gradients: Gradients | None


@dataclass(frozen=True, kw_only=True, eq=False)
class FreshAttacks(Result):
    """What the attacks did.

    Attributes:
        outcome: of the attacks.
        positions: int64 ``[m]``: which images were attacked.
        failures: the images that they broke.
    """

    outcome: AttackOutcome
    positions: Integers
    failures: tuple[BrokenImage, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class AlarmsRaised(Result):
    """Signs that the attacks failed for another reason than that the file is robust, in sentences."""

    alarms: tuple[str, ...]
