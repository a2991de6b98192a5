from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.core.contracts import Batch, Progress

Array = NDArray[np.float64]


class Affine(nn.Module):
    """Two pixels to three logits, small enough to work by hand; remembers the images it saw."""

    def __init__(self, weight: list[list[float]]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float64))
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach())
        return x.flatten(1) @ self.weight.T


def _images(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).view(len(rows), 1, 1, 2)


@dataclass
class Worked:
    """Two images, a student and a teacher whose losses NumPy can work out in float64."""

    x: Tensor = field(default_factory=lambda: _images([0.2, 0.7], [0.9, 0.1]))
    x_adv: Tensor = field(default_factory=lambda: _images([0.3, 0.6], [0.8, 0.2]))
    y: Tensor = field(default_factory=lambda: torch.tensor([0, 2]))
    student: Affine = field(default_factory=lambda: Affine([[1.0, -2.0], [0.5, 0.25], [-1.0, 3.0]]))
    teacher: Affine = field(default_factory=lambda: Affine([[0.5, 1.0], [2.0, -1.0], [0.3, 0.1]]))

    @property
    def batch(self) -> Batch:
        """With the teacher's logits on the natural images, as the loop hands it over."""
        return Batch(self.x, self.y, self.logits(self.teacher, self.x, as_tensor=True))

    @property
    def weight(self) -> Array:
        """The student's ``[3, 2]``."""
        return self.student.weight.detach().numpy().copy()

    @staticmethod
    def progress(epoch: int = 0, epochs: int = 10) -> Progress:
        return Progress(epoch, epochs, step=0, steps=1)

    @staticmethod
    def pixels(x: Tensor) -> Array:
        return x.flatten(1).numpy()

    @staticmethod
    def logits(model: Affine, x: Tensor, *, as_tensor: bool = False) -> Any:
        found = x.flatten(1) @ model.weight.detach().T
        return found if as_tensor else found.numpy()

    @staticmethod
    def softmax(z: Array) -> Array:
        e = np.exp(z - z.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    @staticmethod
    def kl(p: Array, q: Array) -> Array:
        return (p * (np.log(p) - np.log(q))).sum(1)

    def ce(self, z: Array, smoothing: float = 0.0) -> Array:
        log_p = np.log(self.softmax(z))
        y = self.y.numpy()
        return -(1 - smoothing) * log_p[np.arange(len(y)), y] - smoothing * log_p.mean(1)

    def check(
        self, method: Any, expected: Callable[[Array], float], *, progress: Progress | None = None, **batch: Any
    ) -> dict[str, Tensor]:
        """The loss equals a function of the student's weights, and its gradient that function's central difference.

        What the function holds fixed is detached in the method, and what it computes from the weights is not.
        """
        given = Batch(**{**self.batch.__dict__, **batch})
        self.student.zero_grad()
        self.student.seen.clear()
        self.teacher.zero_grad()
        self.teacher.seen.clear()
        terms: dict[str, Tensor] = method.outer(
            self.student, self.teacher, given, self.x_adv, progress or self.progress()
        )
        terms["total"].backward()
        assert terms["total"].item() == pytest.approx(expected(self.weight), rel=1e-10)
        assert self.student.weight.grad is not None
        assert self.teacher.weight.grad is None, "the teacher learns nothing"
        h, numerical = 1e-5, np.zeros_like(self.weight)
        for position in np.ndindex(*numerical.shape):
            step = np.zeros_like(numerical)
            step[position] = h
            numerical[position] = (expected(self.weight + step) - expected(self.weight - step)) / (2 * h)
        np.testing.assert_allclose(self.student.weight.grad.numpy(), numerical, rtol=1e-6, atol=1e-8)
        return terms

    def saw(self) -> list[str]:
        """Which images the student's forwards had, in order."""
        names = {"natural": self.x, "adversarial": self.x_adv}
        return [next((n for n, x in names.items() if torch.equal(x, seen)), "other") for seen in self.student.seen]

    def check_objective(self, method: Any, p: Array, q: Array) -> None:
        """The inner objective is ``KL(p || q)`` of each image, and its gradient ``q - p`` through the weights."""
        values, gradient = self.objective(method)
        np.testing.assert_allclose(values, self.kl(p, q), rtol=1e-12)
        np.testing.assert_allclose(gradient, (q - p) @ self.weight, rtol=1e-12)

    def objective(self, method: Any) -> tuple[Array, Array]:
        """The inner objective's values on ``x_adv`` ``[2]`` and their gradients ``[2, 2]``."""
        found = method.inner(self.student, self.teacher, self.batch)
        x_adv = self.x_adv.clone().requires_grad_()
        values = found(x_adv, torch.arange(2))
        (gradient,) = torch.autograd.grad(values.sum(), x_adv)
        alone = found(self.x_adv[1:], torch.tensor([1]))
        assert alone.item() == pytest.approx(values[1].item(), rel=1e-12), "each value is its own image's"
        return values.detach().numpy(), gradient.flatten(1).numpy()


@pytest.fixture
def worked() -> Worked:
    return Worked()
