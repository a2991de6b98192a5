"""The verifier's gradient attack on a linear model, whose best attack is known."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from compressor.core.types import Threat
from compressor.numerics.randomness import make_generator
from exporters.file_attacks.white_box import WhiteBox

THREAT = Threat("Linf", "0.05")


class Linear(nn.Module):
    """Logits ``W (x - 0.5)``, and how many images were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.randn((4, 12), generator=make_generator("weights"))
        self.asked = 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        return (x.flatten(1) - 0.5) @ self.weight.T


def images(n: int = 64) -> tuple[Tensor, Tensor]:
    x = 0.2 + 0.6 * torch.rand((n, 3, 2, 2), generator=make_generator("images"))
    return x, Linear()(x).argmax(1)


def best_leads(x: Tensor, y: Tensor) -> Tensor:
    """The largest margin of each wrong class that the ball allows, ``[B, K]``; exact, as no pixel reaches 0 or 1."""
    weight = Linear().weight
    z = (x.flatten(1) - 0.5) @ weight.T
    gain = THREAT.radius * (weight[None] - weight[y][:, None]).abs().sum(2)
    return (z - z.gather(1, y.unsqueeze(1)) + gain).scatter(1, y.unsqueeze(1), float("-inf"))


@pytest.mark.parametrize("loss", ["cross_entropy", "cw_margin", "targeted"])
def test_what_falls_could_fall(loss: Literal["cross_entropy", "cw_margin", "targeted"]) -> None:
    x, y = images()
    _, broken = WhiteBox(loss)(Linear(), x, y, THREAT, make_generator(0))
    possible = best_leads(x, y).amax(1) > 0
    assert 5 < int(possible.sum()) < 60
    assert not (broken & ~possible).any()
    assert broken.sum() >= 0.8 * possible.sum() or loss == "targeted"


def test_targets_together_find_everything_that_can_fall() -> None:
    x, y = images(512)
    runs = [WhiteBox("targeted", rank=rank)(Linear(), x, y, THREAT, make_generator(rank)).broken for rank in (1, 2, 3)]
    leads = best_leads(x, y).amax(1)
    decided = leads.abs() > 1e-3
    assert torch.equal((runs[0] | runs[1] | runs[2])[decided], (leads > 0)[decided])
    assert (runs[1] & ~runs[0]).any()


class Grudging(Linear):
    """Admits of each error only a millionth, while the fourth class stays far behind."""

    def forward(self, x: Tensor) -> Tensor:
        z = super().forward(x)
        lead = z[:, :1] - z[:, 1:2]
        lead = lead.clamp_min(0) + 1e-6 * lead.clamp_max(0)
        return torch.cat([lead, torch.zeros_like(lead), torch.full_like(lead, -5), torch.full_like(lead, -9)], 1)


@pytest.mark.parametrize(("tolerance", "falls"), [(0.0, True), (1e-9, True), (1.0, False)])
def test_an_image_falls_only_beyond_its_tolerance(tolerance: float, falls: bool) -> None:
    # Their range of logits is 9, so 1e-4 of it is far more than these errors; a smaller tolerance is kept.
    x, _ = images(200)
    z = Linear()(x)
    x = x[(z[:, 0] - z[:, 1]).abs() < 0.2]
    x_adv, broken = WhiteBox("cw_margin", tolerance=tolerance)(
        Grudging(), x, torch.zeros(len(x), dtype=torch.int64), THREAT, make_generator(0)
    )
    assert bool(broken.any()) is falls
    z = Grudging()(x_adv)
    assert bool((z[:, 1] > z[:, 0]).any())


def test_a_wide_tolerance_does_not_hide_errors_on_small_logits() -> None:
    x, y = images()
    x_adv, broken = WhiteBox("cw_margin", tolerance=1.0)(Linear(), x, y, THREAT, make_generator(0))
    z = Linear()(x_adv)
    margin = z.scatter(1, y.unsqueeze(1), float("-inf")).amax(1) - z.gather(1, y.unsqueeze(1)).squeeze(1)
    assert broken.any()
    assert (margin > 1e-4 * (z.amax(1) - z.amin(1)))[broken].all()


def test_a_rank_beyond_the_classes_is_the_last_class() -> None:
    x, y = images(8)
    last = WhiteBox("targeted", rank=3)(Linear(), x, y, THREAT, make_generator(0))
    beyond = WhiteBox("targeted", rank=9)(Linear(), x, y, THREAT, make_generator(0))
    assert torch.equal(last.x_adv, beyond.x_adv)


def test_fallen_images_cost_nothing_more() -> None:
    x, y = images(16)
    model = Linear()
    WhiteBox("cw_margin", steps=20)(model, x, (y + 1) % 4, THREAT, make_generator(0))
    assert model.asked <= 16 * 3
