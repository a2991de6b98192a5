"""Natural training looks at the natural images, and at nothing else."""

from __future__ import annotations

import pytest
import torch

from compressor.methods.natural import Natural


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_cross_entropy_on_natural_images_and_no_attack(worked, smoothing: float) -> None:
    assert Natural().inner(worked.student, None, worked.batch) is None
    worked.x_adv = torch.full_like(worked.x, torch.nan)
    worked.check(
        Natural(),
        lambda weight: worked.ce(worked.pixels(worked.x) @ weight.T, smoothing).mean(),
        label_smoothing=smoothing,
    )
    assert worked.saw() == ["natural"]
