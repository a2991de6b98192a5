from __future__ import annotations

import torch
from torch import Tensor, nn

from compressor.core.registry import MODELS
from compressor.core.types import ModelSpec
from compressor.frozen import FrozenTwin, Surrogate, chunk_of, confirm_misclassified, surrogate_of
from compressor.numerics.losses import is_wrong
from compressor.numerics.randomness import make_generator


class Fixed(nn.Module):
    """Gives the rows of a table: the image's first pixel is the row."""

    def __init__(self, rows: list[list[float]]) -> None:
        super().__init__()
        self.rows = torch.tensor(rows)
        self.asked: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        index = x[:, 0, 0, 0].long()
        self.asked += index.tolist()
        return self.rows[index]


X = torch.arange(5.0).view(5, 1, 1, 1)
Y = torch.zeros(5, dtype=torch.int64)
# Clearly right, right by a hair, a tie, wrong by a hair, clearly wrong.
PROPOSED = [[1.0, 0.0, -1.0], [1.0, 0.99, -1.0], [1.0, 1.0, -1.0], [0.99, 1.0, -1.0], [0.0, 1.0, -1.0]]


def network() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(32, 10),
    ).eval()  # fmt: skip
    generator = make_generator(0, "surrogate")
    with torch.no_grad():
        for tensor in (*model.parameters(), model[1].running_mean):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.5)
        model[1].running_var.copy_(torch.rand(8, generator=generator) + 0.5)
    return model


def test_the_model_s_word_counts_and_it_is_asked_only_where_it_could_differ() -> None:
    decider = Fixed([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    surrogate = Surrogate(nn.Identity(), decider, uncertainty=0.02)
    wrong = surrogate.confirm_misclassified(X, Y, torch.tensor(PROPOSED))
    assert wrong.tolist() == [False, False, True, False, True]
    assert decider.asked == [1, 2, 3, 4]


def test_logits_that_are_not_finite_are_asked_about() -> None:
    decider = Fixed([[1.0, 0.0]] * 5)
    logits = torch.tensor([[torch.nan, 0.0], [torch.inf, 0.0], [-torch.inf, 0.0], [5.0, 0.0], [torch.inf, torch.inf]])
    assert not Surrogate(nn.Identity(), decider, uncertainty=0.01).confirm_misclassified(X, Y, logits).any()
    assert set(decider.asked) >= {0, 2, 4}


def test_without_a_surrogate_the_logits_at_hand_decide() -> None:
    logits = torch.tensor(PROPOSED)
    assert torch.equal(confirm_misclassified(nn.Identity(), X, Y, logits), is_wrong(logits, Y))


def test_of_a_network_it_is_the_folded_twin_with_the_network_behind_it() -> None:
    model = network()
    x = torch.rand(16, 3, 8, 8, generator=make_generator(1))
    surrogate = surrogate_of(model, x[:8])
    assert isinstance(surrogate, Surrogate)
    assert isinstance(surrogate.proposer, FrozenTwin)
    assert surrogate.decider is model
    assert surrogate.uncertainty < 1e-4
    assert chunk_of(surrogate) == surrogate.proposer.chunk is not None
    y = model(x).argmax(1)
    y[::2] = (y[::2] + 1) % 10
    with torch.no_grad():
        assert confirm_misclassified(surrogate, x, y, surrogate(x)).tolist() == [True, False] * 8


def test_in_bfloat16_the_doubt_covers_what_the_proposer_is_off_by() -> None:
    model = network()
    x = torch.rand(64, 3, 8, 8, generator=make_generator(2))
    surrogate = surrogate_of(model, x[:8], "bf16")
    assert isinstance(surrogate, Surrogate)
    assert 1e-3 < surrogate.uncertainty < 0.1
    with torch.no_grad():
        exact, near = model(x), surrogate(x)
        spread = exact.amax(1) - exact.amin(1)
        assert float(((near - exact).abs().amax(1) / spread).max()) < 2 * surrogate.uncertainty
        for y in (exact.argmax(1), exact.topk(2).indices[:, 1]):
            assert torch.equal(confirm_misclassified(surrogate, x, y, near), is_wrong(exact, y))


def test_what_cannot_be_folded_is_attacked_as_it_is() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            if float(x.sum()) > 0:
                return x.mean(dim=(2, 3)) * self.weight
            return x.mean(dim=(2, 3))

    x = torch.rand(2, 3, 4, 4)
    odd, empty = Odd(), nn.Flatten()
    assert surrogate_of(odd, x) is odd
    assert surrogate_of(empty, x) is empty


def test_a_library_network_s_surrogate_agrees_with_it() -> None:
    spec = ModelSpec("resnet18-0.25", 10)
    model = MODELS.get("resnet18").build(spec).eval()
    x = torch.rand(4, 3, 32, 32, generator=make_generator(3))
    surrogate = surrogate_of(model, x)
    with torch.no_grad():
        torch.testing.assert_close(surrogate(x), model(x), atol=1e-4, rtol=1e-4)
