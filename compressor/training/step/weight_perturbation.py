"""AWP, adversarial weight perturbation: the step's gradient is taken at weights that were moved against the loss.

Source: Wu, Xia and Wang 2020, "Adversarial Weight Perturbation Helps Robust Generalization", eq. 7 to 9, one step, and
its released code: a whole weight tensor is a layer, and what has fewer than two axes (biases, BatchNorm) stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call


class FixedBatchStatistics(nn.Module):
    """A student whose forwards leave its BatchNorm statistics alone: they move copies."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student
        self._copies = {name: buffer.clone() for name, buffer in student.named_buffers()}

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, K]`` of images ``[B, C, H, W]``."""
        logits: Tensor = functional_call(self.student, self._copies, (x,))
        return logits


def perturbed_tensors(student: nn.Module) -> list[Tensor]:
    """The weights that AWP moves: those that train and have at least two axes."""
    return [weight for weight in student.parameters() if weight.requires_grad and weight.ndim > 1]


def weight_perturbations(weights: Sequence[Tensor], loss: Tensor, gamma: float) -> list[Tensor]:
    """``v = gamma ||w|| g / ||g||`` for each weight tensor, with g the loss's gradient with respect to it.

    Args:
        weights: any shapes.
        loss: a scalar that depends on them; its scale does not matter.
        gamma: the size of a perturbation, relative to its weights.

    Returns:
        Perturbations of the weights' shapes; zero where the gradient is zero, not finite, or absent.
    """
    gradients = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
    perturbations = []
    for weight, gradient in zip(weights, gradients, strict=True):
        length = torch.linalg.vector_norm(gradient)
        moves = length.isfinite() & (length > 0)
        factor = gamma * torch.linalg.vector_norm(weight.detach()) / torch.where(moves, length, 1.0)
        perturbations.append(torch.where(moves, gradient * factor, 0.0))
    return perturbations


@contextmanager
def weights_moved(weights: Sequence[Tensor], perturbations: Sequence[Tensor]) -> Iterator[None]:
    """Move the weights inside the block, in place; they come back to the bit."""
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, perturbation in zip(weights, perturbations, strict=True):
            weight.add_(perturbation)
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, before, strict=True):
                weight.copy_(value)


@contextmanager
def perturbed_weights(student: nn.Module, loss_of: Callable[[nn.Module], Tensor], gamma: float) -> Iterator[None]:
    """Move a student's weights against a loss inside the block.

    Args:
        student: neither wrapped nor compiled; finding the direction involves no other process, synchronised BatchNorm
            excepted.
        loss_of: the scalar loss of the student it is given.
        gamma: the size of a perturbation, relative to its weights.
    """
    weights = perturbed_tensors(student)
    perturbations = weight_perturbations(weights, loss_of(FixedBatchStatistics(student)), gamma)
    with weights_moved(weights, perturbations):
        yield
