"""Step 7 as a whole: signs that the attacks were blinded. The verifier looks for them, and the exporter before it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from compressor.core.types import Threat
from compressor.evaluation.report import Alarm
from exporters.claim.evidence import Floats, Integers
from exporters.differentiable import agreement
from exporters.file_attacks.alarms import (
    USELESS_GRADIENTS_ALLOWED,
    answers_one_class,
    half_range_survivors,
    reaches,
    tied,
    upsets,
)
from exporters.file_attacks.attacks import Outcome
from exporters.file_attacks.gradients import Gradients
from exporters.file_attacks.path_integrals import journeys
from exporters.file_attacks.replay import unsteady_leads
from exporters.file_attacks.target import Target


@dataclass(frozen=True)
class Findings:
    """What was found.

    Attributes:
        alarms: what rang.
        one_class: whether alarms were waived because the file gives everything one class, which nothing can break.
    """

    alarms: tuple[Alarm, ...]
    one_class: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The alarms' names, each once, sorted: what a claim says of them."""
        return tuple(sorted({alarm.name for alarm in self.alarms}))


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
    outcome: Outcome
    threat: Threat


def look_for_blindness(target: Target, gradients: Gradients | None, attacked: AttackedImages, seed: int) -> Findings:
    """Every sign that the attacks failed for another reason than that the file is robust.

    Args:
        target: decides.
        gradients: what the attacks climbed; None where there were black-box attacks alone.
        attacked: what they did.
        seed: of the alarms' own draws.
    """
    found = [*_of_the_answers(target, attacked)]
    if gradients is None:
        return Findings(tuple(found))
    found += _of_the_attacks(target, gradients, attacked)
    standing = attacked.chosen[~attacked.outcome.broken]
    found += journeys(target, gradients, attacked.images, attacked.labels, standing, attacked.threat, seed)
    weak: list[Alarm] = []
    for alarm, waivable in _of_the_gradients(target, gradients, attacked, seed):
        (weak if waivable else found).append(alarm)
    one_class = bool(weak) and answers_one_class(
        target, attacked.images, attacked.labels, attacked.outcome.x_adv, attacked.threat, seed
    )
    return Findings(tuple(found if one_class else found + weak), one_class)


def _of_the_answers(target: Target, attacked: AttackedImages) -> Iterator[Alarm]:
    outcome, labels = attacked.outcome, attacked.labels[attacked.chosen]
    yield from (Alarm("ties", detail) for detail in tied(outcome, target.ties_by_format))
    differing = int(unsteady_leads(target, outcome.x_adv, labels, outcome.leads).sum())
    if differing:
        yield Alarm(
            "batch-dependence",
            f"{differing} of {len(labels)} attacked images have other logits alone than in their batch",
        )


def _of_the_attacks(target: Target, gradients: Gradients, attacked: AttackedImages) -> Iterator[Alarm]:
    gate = agreement(target.session, gradients.graph, attacked.outcome.x_adv)
    if len(attacked.chosen) and not gate.passed:
        yield Alarm(
            "gradients-of-another-model",
            f"on attacked images the importer does not compute what the file does ({gate})",
        )
    yield from upsets(attacked.outcome)


def _of_the_gradients(
    target: Target, gradients: Gradients, attacked: AttackedImages, seed: int
) -> Iterator[tuple[Alarm, bool]]:
    """Alarms, and whether a file that gives everything one class is excused from them."""
    outcome = attacked.outcome
    standing = attacked.chosen[~outcome.broken]
    natural, labels = attacked.images[standing], attacked.labels[standing]
    for name, images, right in (
        ("images", attacked.images, attacked.labels),
        ("attacked images", outcome.x_adv[~outcome.broken], labels),
    ):
        reach = reaches(gradients, images, right)
        zero, short = int((reach == 0).sum()), int((reach < 1).sum())
        if zero > USELESS_GRADIENTS_ALLOWED * len(images):
            yield Alarm("zero-gradients", f"the gradient is zero on {zero} of {len(images)} {name}"), False
        elif short > USELESS_GRADIENTS_ALLOWED * len(images):
            detail = f"the gradient is too small to matter on {short} of {len(images)} {name}"
            yield Alarm("small-gradients", detail), True
    survivors, tried = half_range_survivors(target, gradients, natural, labels, seed)
    if survivors:
        yield Alarm("half-range", f"{survivors} of {tried} images survive eps = 0.5, which no classifier can"), True
