"""Fresh attacks on images robust so far. Attacks propose, and only what onnxruntime misclassifies counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from compressor.attacks.square import Square
from compressor.core.contracts import Attack
from compressor.core.errors import CompressError
from compressor.core.reporting import OnProgress
from compressor.core.types import Threat
from compressor.evaluation.suites import QUERY_ONLY, get_suite
from compressor.numerics.ball import inside_ball
from compressor.numerics.randomness import make_generator
from exporters.claim.evidence import Bits, Floats, Integers
from exporters.file_attacks.gradients import Gradients
from exporters.file_attacks.suite import REPLAY_SUITE, VERIFY_SUITE
from exporters.file_attacks.target import Margins, Target
from exporters.file_attacks.time_limit import Deadline
from exporters.file_attacks.white_box import WhiteBox
from exporters.model_file.runtime import Session, SessionModule

NATURAL = "natural"
SQUARE = "Square"
FGSM = "FGSM"

_SQUARE_QUERIES = 150
_BATCH = 64
_TEMPERATURES = (0.02, 0.5)
"""For eight-bit files, as parts of the logit scale: the leading classes alone count, or all do."""


@dataclass(frozen=True)
class Attempt:
    """One attack of a suite and the module that it is run on."""

    name: str
    attack: Attack
    model: nn.Module


@dataclass(frozen=True, eq=False)
class AttackOutcome:
    """What a list of attempts did to m images.

    Attributes:
        x_adv: float32 ``[m, C, H, W]``: what broke each image or, where nothing did, the attacks' picture at which the
            right class led by least.
        broken: bool ``[m]``.
        leads: float64 ``[m]``: by how much the right class leads at ``x_adv``.
        near_ties: bool ``[m]``: not broken, but an attempt found a picture at which the lead is within the tolerance.
        by: for each broken image the attempt that broke it.
        counts: how many images each attempt broke, in the order they ran.
        finished: whether every attempt saw every image that it should have; False where time ran out.
    """

    x_adv: Floats
    broken: Bits
    leads: Margins
    near_ties: Bits
    by: dict[int, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    finished: bool = True


@dataclass(frozen=True, eq=False)
class AttackedImages:
    """Images, and what the attacks made of some of them.

    Attributes:
        images: float32 ``[n, C, H, W]``: all of them, unattacked.
        labels: int64 ``[n]``.
        chosen: int64 ``[m]``: which of them were attacked.
        outcome: of the attacks on those.
        threat: the ball.
    """

    images: Floats
    labels: Integers
    chosen: Integers
    outcome: AttackOutcome
    threat: Threat

    @property
    def robust_so_far(self) -> Integers:
        """int64 ``[r]``: positions of the images that were attacked and that no attack broke."""
        return self.chosen[~self.outcome.broken]


def resolve_suite(requested: str | None, claimed: str, *, latest: bool = False) -> str:
    """Which suites a verification runs: the verifier's own, and after it what its caller asks for.

    Any other suite comes on top, as its attacks stop at the first wrong answer and bring no alarms with them.
    A claim cannot choose a weaker suite, nor one that keeps the verifier busy for hours: of a claim that was sealed
    with more than the verifier's own suite, the verifier's own is run unless the caller asks for more.

    Raises:
        UnknownNameError: the caller asks for a suite that does not exist.
        CompressError: the claim was sealed with a version that this program does not know.
    """
    if requested is not None:
        if requested in ("verify", VERIFY_SUITE):
            return VERIFY_SUITE
        return REPLAY_SUITE if requested == REPLAY_SUITE else f"{VERIFY_SUITE}+{get_suite(requested)}"
    own = [name for name in claimed.split("+") if name.partition("@")[0] == "verify"]
    if not latest and own != [VERIFY_SUITE]:
        raise CompressError(
            f"the claim was sealed with {claimed!r}, and this program's own suite is {VERIFY_SUITE}.",
            "Install a newer version of this program, or verify with --latest.",
        )
    return VERIFY_SUITE


def build_attempts(suite: str, session: Session, gradients: Gradients | None) -> tuple[Attempt, ...]:
    """The verifier's own attacks, then those of ``verify@1+NAME``, each with the module it runs on.

    Without gradients, only those that need none.

    Raises:
        UnknownNameError: no such suite.
    """
    _, _, more = suite.partition("+")
    own = _own_attempts(session, gradients)
    return own + _attempts_of(more, session, gradients) if more else own


def _attempts_of(suite: str, session: Session, gradients: Gradients | None) -> tuple[Attempt, ...]:
    black_box = SessionModule(session)
    white = gradients.model if gradients else None
    models = [(column, black_box if column.attack in QUERY_ONLY else white) for column in get_suite(suite).columns]
    return tuple(
        Attempt(f"{suite} {column.name}", column.build(), model) for column, model in models if model is not None
    )


def _own_attempts(session: Session, gradients: Gradients | None) -> tuple[Attempt, ...]:
    black_box = SessionModule(session)
    square = Attempt(SQUARE, Square(queries=_SQUARE_QUERIES), black_box)
    if gradients is None:
        return (square,)
    tolerance = gradients.tolerance
    margin = WhiteBox("cw_margin", tolerance=tolerance)
    attempts = [Attempt("PGD-margin", margin, gradients.model)]
    # Ascent towards the leading wrong class alone misses some images that another class would win.
    for rank, steps in ((2, 15), (3, 10)):
        if rank < session.classes:
            targeted = WhiteBox("targeted", steps=steps, tolerance=tolerance, rank=rank)
            attempts.append(Attempt(f"PGD-target-{rank}", targeted, gradients.model))
    attempts.append(Attempt("PGD-CE", WhiteBox("cross_entropy", steps=10, tolerance=tolerance), gradients.model))
    if gradients.through_clip is not None:
        attempts.append(Attempt("PGD-margin through Clip", margin, gradients.through_clip))
    if gradients.unrounded is not None:
        attempts.append(Attempt("PGD-margin unrounded", margin, gradients.unrounded))
        for part in _TEMPERATURES:
            warm = WhiteBox("cross_entropy", steps=10, tolerance=tolerance, temperature=part * gradients.scale)
            attempts.append(Attempt(f"PGD-CE T={part:g}", warm, gradients.model))
    # One long step, after many short ones: it should find nothing, and is an alarm where it does.
    attempts.append(Attempt(FGSM, WhiteBox("cw_margin", steps=1, step=1.0, tolerance=tolerance), gradients.model))
    return (*attempts, square)


def run_attempts(
    attempts: Sequence[Attempt],
    target: Target,
    images: Floats,
    labels: Integers,
    threat: Threat,
    *,
    seed: int,
    on_progress: OnProgress | None = None,
    deadline: Deadline | None = None,
) -> AttackOutcome:
    """Run each attempt on the images that are robust so far.

    An image counts as broken when the session gets a picture wrong, beyond the picture's own tolerance, that lies in
    the ball by NumPy's own arithmetic: an attack's word is not taken for either.

    Args:
        attempts: in order.
        target: what is attacked.
        images: float32 ``[m, C, H, W]``.
        labels: int64 ``[m]``.
        threat: the ball.
        seed: with the attempt's name and the batch, it fixes every random choice.
        on_progress: told after every batch.
        deadline: no batch is begun after it.
    """
    deadline = deadline or Deadline()
    finished = True
    x_adv = images.copy()
    leads, tolerances = target.judge(images, labels)
    broken, near = leads < -tolerances, np.abs(leads) <= tolerances
    tried = broken.copy()
    by = dict.fromkeys(np.flatnonzero(broken).tolist(), NATURAL)
    counts = {NATURAL: int(broken.sum())}
    for attempt in attempts:
        robust_so_far = np.flatnonzero(~broken)
        for start in range(0, len(robust_so_far), _BATCH):
            if deadline.is_over():
                finished = False
                break
            part = robust_so_far[start : start + _BATCH]
            x, y = images[part], labels[part]
            generator = make_generator(seed, attempt.name, start)
            result = attempt.attack(attempt.model, torch.from_numpy(x), torch.from_numpy(y), threat, generator)
            found = np.ascontiguousarray(result.x_adv.detach().cpu().numpy(), dtype=np.float32)
            inside = inside_ball(found, x, threat)
            lead, tolerance = target.judge(found, y)
            newly_broken = inside & (lead < -tolerance)
            near[part] |= inside & (np.abs(lead) <= tolerance)
            # An attack that gives up may hand back the image itself, which is no picture of its own.
            moved = inside & (found != x).any(axis=(1, 2, 3))
            nearest = newly_broken | (moved & ((lead < leads[part]) | ~tried[part]))
            tried[part] |= moved
            x_adv[part[nearest]], leads[part[nearest]] = found[nearest], lead[nearest]
            broken[part[newly_broken]] = True
            by |= dict.fromkeys(part[newly_broken].tolist(), attempt.name)
            if on_progress is not None:
                on_progress(attempt.name, min(start + _BATCH, len(robust_so_far)), len(robust_so_far))
        counts[attempt.name] = int(broken[robust_so_far].sum())
        if not finished:
            break
    return AttackOutcome(x_adv, broken, leads, near & ~broken, by, counts, finished)
