"""The two ways in which APGD is run: away from the right class, and towards each of the likeliest wrong ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Literal

from torch import Generator, Tensor, nn

from compressor.attacks._apgd import Loss, random_start, run_apgd
from compressor.attacks._search import attack_correctly_classified, likeliest_wrong_classes, search_in_turn
from compressor.core.contracts import AttackResult
from compressor.core.errors import UsageError
from compressor.core.types import Threat
from compressor.numerics import losses


@dataclass(frozen=True)
class Apgd:
    """Untargeted APGD, each restart on the images that are robust so far.

    Attributes:
        loss: what it maximises, a function of ``compressor.numerics.losses``.
        steps: of each run.
        restarts: how many runs, each from its own random start.
    """

    loss: Literal["cross_entropy", "dlr", "cw_margin"]
    steps: int = 100
    restarts: int = 1

    def __post_init__(self) -> None:
        _check_counts(self.steps, self.restarts)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, generator: Generator) -> AttackResult:
        """Attack ``x`` ``[B, C, H, W]`` with labels ``y`` ``[B]``; the model is left exactly as it was found."""
        loss = getattr(losses, self.loss)

        def search(natural: Tensor, labels: Tensor) -> Tensor:
            def away(logits: Tensor, index: Tensor) -> Tensor:
                values: Tensor = loss(logits, labels[index])
                return values

            return _run_in_turn(model, natural, labels, threat, generator, repeat(away, self.restarts), self.steps)

        return attack_correctly_classified(model, x, y, threat, search)


@dataclass(frozen=True)
class TargetedApgd:
    """APGD on the targeted DLR loss towards one wrong class after another, the likeliest first.

    Attributes:
        steps: of each run.
        targets: how many wrong classes; at most one less than there are classes.
        restarts: runs towards each class.
    """

    steps: int = 100
    targets: int = 9
    restarts: int = 1

    def __post_init__(self) -> None:
        _check_counts(self.steps, self.restarts, self.targets)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, generator: Generator) -> AttackResult:
        """Attack ``x`` ``[B, C, H, W]`` with labels ``y`` ``[B]``; the model is left exactly as it was found."""

        def search(natural: Tensor, labels: Tensor) -> Tensor:
            def towards(target: Tensor) -> Loss:
                return lambda logits, index: losses.targeted_dlr(logits, labels[index], target[index])

            targets = likeliest_wrong_classes(model, natural, labels, self.targets).unbind(1)
            runs = (towards(target) for target in targets for _ in range(self.restarts))
            return _run_in_turn(model, natural, labels, threat, generator, runs, self.steps)

        return attack_correctly_classified(model, x, y, threat, search)


def _run_in_turn(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    generator: Generator,
    runs: Iterable[Loss],
    steps: int,
) -> Tensor:
    """Images ``[B, C, H, W]`` after each run on those that are robust so far."""

    def search(loss: Loss, at: Tensor) -> tuple[Tensor, Tensor]:
        # Drawn for those robust so far, as in the released code: the same seed gives the same noise here and there.
        start = random_start(x[at], threat, generator)
        return run_apgd(model, x[at], y[at], threat, _at(loss, at), start, steps=steps)

    return search_in_turn(x, (partial(search, loss) for loss in runs))


def _at(loss: Loss, places: Tensor) -> Loss:
    """The same loss for the images at some places of its batch."""
    return lambda logits, index: loss(logits, places[index])


def _check_counts(steps: int, restarts: int, targets: int = 1) -> None:
    if min(steps, restarts, targets) < 1:
        raise UsageError(
            f"an attack of {steps} steps, {restarts} restarts and {targets} targets is no attack.",
            "Use at least 1 of each.",
        )
