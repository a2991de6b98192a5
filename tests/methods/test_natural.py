"""Natural training looks at the natural images, and at nothing else."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from compressor.contracts import Batch, Progress
from compressor.methods.natural import Natural


def test_no_attack_and_cross_entropy_on_natural_images() -> None:
    student = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    batch = Batch(torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 2, 1, 0]))
    assert Natural().inner(student, None, batch) is None
    terms = Natural().outer(student, None, batch, torch.full_like(batch.x, torch.nan), Progress(0, 1, 0, 1))
    assert torch.equal(terms["total"], F.cross_entropy(student(batch.x), batch.y))
