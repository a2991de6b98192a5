"""SAT trains and attacks with the same loss: the labels' cross-entropy on the adversarial images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from compressor.contracts import Batch, Progress
from compressor.methods.sat import SAT

PROGRESS = Progress(epoch=0, epochs=1, step=0, steps=1)


def test_loss_is_cross_entropy_on_the_adversarial_images_alone() -> None:
    student = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).double()
    x, x_adv, y = torch.rand(5, 1, 2, 2).double(), torch.rand(5, 1, 2, 2).double(), torch.tensor([0, 1, 2, 1, 0])
    logits = student(x_adv).detach().numpy()
    expected = (np.log(np.exp(logits).sum(1)) - logits[np.arange(5), y.numpy()]).mean()

    terms = SAT().outer(student, None, Batch(x, y), x_adv, PROGRESS)
    assert terms["total"].item() == pytest.approx(expected, rel=1e-12)


def test_objective_follows_the_index() -> None:
    student = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).double()
    x, y = torch.rand(3, 1, 2, 2).double(), torch.tensor([0, 1, 2])
    objective = SAT().inner(student, None, Batch(x, y))
    everything, index = objective(x, torch.arange(3)), torch.tensor([2, 0])
    assert torch.equal(objective(x[index], index), everything[index])
