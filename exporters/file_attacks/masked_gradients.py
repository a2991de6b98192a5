"""All signs of masked gradients. The verifier looks for them, and the exporter before it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from compressor.evaluation.chance import USELESS_GRADIENTS_ALLOWED
from compressor.evaluation.report import Alarm
from exporters.differentiable.logit_agreement import compare_with_onnxruntime
from exporters.file_attacks.alarms import (
    count_robust_at_half_range,
    file_predicts_one_class,
    gradient_reach,
    tie_signs,
    weaker_attack_alarms,
)
from exporters.file_attacks.attacks import AttackedImages
from exporters.file_attacks.gradients import Gradients
from exporters.file_attacks.path_integrals import completeness_alarms
from exporters.file_attacks.replay import find_nondeterministic_leads
from exporters.file_attacks.target import Target


@dataclass(frozen=True)
class MaskingFindings:
    """What was found.

    Attributes:
        alarms: those that were raised.
        one_class: whether alarms were waived because the file gives everything one class, which nothing can break.
    """

    alarms: tuple[Alarm, ...]
    one_class: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The alarms' names, each once, sorted: what a claim says of them."""
        return tuple(sorted({alarm.name for alarm in self.alarms}))


def find_masked_gradients(
    target: Target, gradients: Gradients | None, attacked: AttackedImages, seed: int
) -> MaskingFindings:
    """Every sign that the attacks failed for another reason than that the file is robust.

    Args:
        target: decides.
        gradients: what the attacks followed; None where there were black-box attacks alone.
        attacked: what they did.
        seed: of the alarms' own draws.
    """
    found = [*_of_the_answers(target, attacked)]
    if gradients is None:
        return MaskingFindings(tuple(found))
    found += _of_the_attacks(target, gradients, attacked)
    found += completeness_alarms(target, gradients, attacked, seed)
    weak: list[Alarm] = []
    for alarm, waivable in _of_the_gradients(target, gradients, attacked, seed):
        (weak if waivable else found).append(alarm)
    one_class = bool(weak) and file_predicts_one_class(target, attacked, seed)
    return MaskingFindings(tuple(found if one_class else found + weak), one_class)


def _of_the_answers(target: Target, attacked: AttackedImages) -> Iterator[Alarm]:
    outcome, labels = attacked.outcome, attacked.labels[attacked.chosen]
    yield from (Alarm("ties", detail) for detail in tie_signs(outcome, target.ties_by_format))
    differing = int(find_nondeterministic_leads(target, outcome.x_adv, labels, outcome.leads).sum())
    if differing:
        yield Alarm(
            "batch-dependence",
            f"{differing} of {len(labels)} attacked images have other logits alone than in their batch",
        )


def _of_the_attacks(target: Target, gradients: Gradients, attacked: AttackedImages) -> Iterator[Alarm]:
    agreement = compare_with_onnxruntime(target.session, gradients.graph, attacked.outcome.x_adv)
    if len(attacked.chosen) and not agreement.passed:
        yield Alarm(
            "gradients-of-another-model",
            f"on attacked images the importer does not compute what the file does ({agreement})",
        )
    yield from weaker_attack_alarms(attacked.outcome)


def _of_the_gradients(
    target: Target, gradients: Gradients, attacked: AttackedImages, seed: int
) -> Iterator[tuple[Alarm, bool]]:
    """Alarms, and whether a file that gives everything one class is excused from them."""
    outcome = attacked.outcome
    robust_so_far = attacked.robust_so_far
    natural, labels = attacked.images[robust_so_far], attacked.labels[robust_so_far]
    for name, images, right in (
        ("images", attacked.images, attacked.labels),
        ("attacked images", outcome.x_adv[~outcome.broken], labels),
    ):
        reach = gradient_reach(gradients, images, right)
        zero, short = int((reach == 0).sum()), int((reach < 1).sum())
        if zero > USELESS_GRADIENTS_ALLOWED * len(images):
            yield Alarm("zero-gradients", f"the gradient is zero on {zero} of {len(images)} {name}"), False
        elif short > USELESS_GRADIENTS_ALLOWED * len(images):
            detail = f"the gradient is too small to matter on {short} of {len(images)} {name}"
            yield Alarm("small-gradients", detail), True
    robust, tried = count_robust_at_half_range(target, gradients, natural, labels, seed)
    if robust:
        yield Alarm("half-range", f"{robust} of {tried} images are robust at eps = 0.5, where none can be"), True
