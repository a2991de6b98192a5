"""Auto-PGD: projected ascent with momentum that halves its own steps, and drops broken images.

Source: Croce and Hein 2020, "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free
Attacks", algorithm 1. Where the paper leaves a choice, the authors' released code decides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Generator, Tensor, nn

from compressor.core.types import Threat
from compressor.frozen import chunk_of, confirm_misclassified, finisher_of
from compressor.numerics.ascent import project

Loss = Callable[[Tensor, Tensor], Tensor]
"""From logits ``[b, K]`` and the positions ``[b]`` of their images in the batch to values ``[b]`` to be maximised."""

_MOMENTUM = 0.75
_RHO = 0.75
_FIRST_CHECK, _CHECK_SHRINKS, _LEAST_CHECK = 0.22, 0.03, 0.06
_FINISH = 0.25
_TINY = 1e-12


def run_apgd(
    model: nn.Module, x: Tensor, y: Tensor, threat: Threat, loss: Loss, start: Tensor, *, steps: int
) -> tuple[Tensor, Tensor]:
    """One run of APGD from a start.

    Args:
        model: logits ``[B, K]`` from images, in eval mode; of a surrogate, its model decides.
        x: natural images ``[B, C, H, W]`` in [0, 1].
        y: labels ``[B]``.
        threat: the ball.
        loss: what is maximised.
        start: images ``[B, C, H, W]`` in the ball and [0, 1].
        steps: how many steps are taken.

    Returns:
        The first image found that the model gets wrong, or ``x`` where there is none; and which were found, ``[B]``.
    """
    x_adv, broken = x.clone(), torch.zeros(len(x), dtype=torch.bool, device=x.device)
    run = _Run.begin(x, y, start, threat)
    checks = _Checks(steps)
    finisher = finisher_of(model)
    # The last steps are small, and what they gain is lost in the rounding of a coarse proposer.
    finish_at = steps - int(_FINISH * steps) if finisher else 0
    for step in range(steps + 1):
        if finisher and step == finish_at:
            model = finisher
            run.return_to_best()
        elif step > 0:
            run.move(threat, momentum=step > 1)
        misclassified = run.evaluate(model, loss, chunk_of(model), with_gradient=step < steps)
        if bool(misclassified.any()):
            positions = run.index[misclassified]
            x_adv[positions], broken[positions] = run.x_adv[misclassified], True
            run = run.select(~misclassified)
            if len(run.index) == 0:
                break
        if step in (0, finish_at):
            run.restart_counts()
        else:
            run.note_progress()
            if checks.is_due():
                run.adapt(checks.interval)
                checks.advance()
    return x_adv, broken


def random_start(x: Tensor, threat: Threat, generator: Generator) -> Tensor:
    """Where APGD begins: on the sphere of the ball, clipped to [0, 1].

    For Linf a uniform direction scaled so that one pixel moves by eps; for L2 a Gaussian one of length eps.

    Args:
        x: images ``[B, C, H, W]``.
        threat: the ball.
        generator: draws on its own device, so that one seed gives one start everywhere.
    """
    if threat.norm == "Linf":
        noise = 2 * torch.rand(x.shape, generator=generator, device=generator.device, dtype=x.dtype).to(x.device) - 1
        length = noise.abs().amax(dim=(1, 2, 3), keepdim=True)
    else:
        noise = torch.randn(x.shape, generator=generator, device=generator.device, dtype=x.dtype).to(x.device)
        length = _l2(noise)
    return (x + threat.radius * (noise / (length + _TINY))).clamp(0.0, 1.0)


class _Checks:
    """After how many steps the step sizes are looked at: intervals shrink from 22 % of all steps to 6 %."""

    def __init__(self, steps: int) -> None:
        self.interval = max(int(_FIRST_CHECK * steps), 1)
        self._shrinks = max(int(_CHECK_SHRINKS * steps), 1)
        self._least = max(int(_LEAST_CHECK * steps), 1)
        self._since = 0

    def is_due(self) -> bool:
        self._since += 1
        return self._since == self.interval

    def advance(self) -> None:
        self.interval = max(self.interval - self._shrinks, self._least)
        self._since = 0


@dataclass(eq=False)
class _Run:
    """The state of the images that are robust so far: every field has one row for each.

    Attributes:
        index: their positions in the batch.
        x: natural images ``[b, C, H, W]``.
        y: labels.
        x_adv: where they are now.
        previous: where they were one step before.
        gradient: of the loss at ``x_adv``.
        value: of the loss at ``x_adv``.
        value_before: of the loss one step before.
        step_size: ``[b, 1, 1, 1]``.
        best: the point of the largest loss so far.
        best_gradient: the gradient there.
        best_value: the loss there.
        best_at_check: that loss when the step sizes were last looked at.
        halved_at_check: whether the step was halved then.
        rises: how often the loss has risen since.
    """

    index: Tensor
    x: Tensor
    y: Tensor
    x_adv: Tensor
    previous: Tensor
    gradient: Tensor
    value: Tensor
    value_before: Tensor
    step_size: Tensor
    best: Tensor
    best_gradient: Tensor
    best_value: Tensor
    best_at_check: Tensor
    halved_at_check: Tensor
    rises: Tensor

    @classmethod
    def begin(cls, x: Tensor, y: Tensor, start: Tensor, threat: Threat) -> _Run:
        zeros = x.new_zeros(len(x))
        return cls(
            index=torch.arange(len(x), device=x.device),
            x=x,
            y=y,
            x_adv=start,
            previous=start,
            gradient=x,
            value=zeros,
            value_before=zeros,
            step_size=x.new_full((len(x), 1, 1, 1), 2 * threat.radius),
            best=start,
            best_gradient=x,
            best_value=zeros,
            best_at_check=zeros,
            # The first look halves no step for want of progress: there was no look before it.
            halved_at_check=torch.ones(len(x), dtype=torch.bool, device=x.device),
            rises=zeros,
        )

    def select(self, kept: Tensor) -> _Run:
        """The images of a mask alone."""
        return _Run(**{field.name: getattr(self, field.name)[kept] for field in fields(self)})

    def evaluate(self, model: nn.Module, loss: Loss, chunk: int | None, *, with_gradient: bool) -> Tensor:
        """Take the loss, and its gradient, at the present images; returns which of them the model gets wrong."""
        misclassified, values, gradients = [], [], []
        size = chunk or len(self.index)
        for images, labels, index in zip(
            torch.split(self.x_adv, size), torch.split(self.y, size), torch.split(self.index, size), strict=True
        ):
            leaf = images.detach().requires_grad_(with_gradient)
            with torch.set_grad_enabled(with_gradient):
                logits = model(leaf)
                value = loss(logits, index)
                if with_gradient:
                    (gradient,) = torch.autograd.grad(value.sum(), leaf)
                    gradients.append(gradient.contiguous().nan_to_num(nan=0.0))
            misclassified.append(confirm_misclassified(model, images, labels, logits))
            values.append(value.detach())
        self.value_before, self.value = self.value, torch.cat(values)
        if with_gradient:
            self.gradient = torch.cat(gradients)
        return torch.cat(misclassified)

    def move(self, threat: Threat, *, momentum: bool) -> None:
        """``z = P(x_t + s u)``, ``x_{t+1} = P(x_t + a (z - x_t) + (1 - a) (x_t - x_{t-1}))``; a = 1 at first."""
        a = _MOMENTUM if momentum else 1.0
        gradient = self.gradient
        direction = gradient.sign() if threat.norm == "Linf" else gradient / (_l2(gradient) + _TINY)
        ahead = project(self.x_adv + self.step_size * direction, self.x, threat)
        moved = self.x_adv + (ahead - self.x_adv) * a + (self.x_adv - self.previous) * (1 - a)
        self.previous, self.x_adv = self.x_adv, project(moved, self.x, threat)

    def return_to_best(self) -> None:
        """Go back to the point of the largest loss, without momentum."""
        self.x_adv = self.previous = self.best

    def restart_counts(self) -> None:
        """Where the images are now is the best point so far."""
        self.best, self.best_gradient = self.x_adv, self.gradient
        self.best_value = self.best_at_check = self.value
        # The first step's loss is held against zero rather than the start's, in the released code and so here.
        self.value = torch.zeros_like(self.value)

    def note_progress(self) -> None:
        """Remember where the loss was largest, and whether it has just risen."""
        self.rises = self.rises + (self.value > self.value_before)
        better = self.value > self.best_value
        wide = better.view(-1, 1, 1, 1)
        self.best = torch.where(wide, self.x_adv, self.best)
        self.best_gradient = torch.where(wide, self.gradient, self.best_gradient)
        self.best_value = torch.where(better, self.value, self.best_value)

    def adapt(self, interval: int) -> None:
        """Halve the steps that rise too seldom, or that found nothing better since the last look; go on at the best."""
        stuck = ~self.halved_at_check & (self.best_at_check >= self.best_value)
        halve = (self.rises <= _RHO * interval) | stuck
        self.halved_at_check, self.best_at_check = halve, self.best_value
        self.rises = torch.zeros_like(self.rises)
        wide = halve.view(-1, 1, 1, 1)
        self.step_size = torch.where(wide, self.step_size / 2, self.step_size)
        self.x_adv = torch.where(wide, self.best, self.x_adv)
        self.gradient = torch.where(wide, self.best_gradient, self.gradient)


def _l2(tensor: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(tensor, dim=(1, 2, 3), keepdim=True)
    return norm
