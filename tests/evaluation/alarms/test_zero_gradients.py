from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.evaluation.alarms.zero_gradients import CHECK


def test_scaled_logits_saturate_the_cross_entropy_alone(robust: nn.Module, examine: Any, behind: Any) -> None:
    masked = examine(behind(robust, lambda logits: 1e4 * logits))
    right = int(masked.right.sum())
    assert CHECK(masked) == (
        f"of {right} images that the model gets right, the gradient is zero or not a number on {right} (cross-entropy)"
    )


@pytest.mark.parametrize(
    "change",
    [torch.round, lambda logits: (logits > 0).float() + 0 * logits, lambda logits: logits + (logits - logits).sqrt()],
    ids=["rounded", "a step", "not a number"],
)
def test_logits_without_a_useful_gradient_ring_for_both_losses(
    robust: nn.Module, examine: Any, behind: Any, change: Any
) -> None:
    masked = examine(behind(robust, change))
    found = CHECK(masked)
    right = int(masked.right.sum())
    assert right > 30
    assert found is not None
    assert found.endswith(f"{right} (cross-entropy) and {right} (margin)")


class Flat(nn.Module):
    """Has no gradient at the first of the images it is shown."""

    def __init__(self, model: nn.Module, flat: Tensor) -> None:
        super().__init__()
        self.model, self.flat = model, flat

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        is_flat = (x.detach()[:, None] == self.flat).flatten(2).all(2).any(1)
        return torch.where(is_flat[:, None], logits.detach(), logits)


@pytest.mark.parametrize(("flat", "rings"), [(2, False), (3, False), (15, True)])
def test_a_few_images_are_allowed(robust: nn.Module, examine: Any, flat: int, rings: bool) -> None:
    plain = examine(robust)
    found = CHECK(examine(Flat(robust, plain.x[plain.right][:flat]), report=plain.report))
    assert (found is not None) == rings


def test_a_constant_model_is_no_alarm_and_an_almost_constant_one_is(
    robust: nn.Module, constant: nn.Module, examine: Any, behind: Any
) -> None:
    assert CHECK(examine(constant)) is None
    # One class for the sample, another for what lies around it.
    steps = behind(robust, lambda logits: 0 * logits + (logits > 4).float())
    assert CHECK(examine(steps)) is not None


def test_one_class_of_images_does_not_make_a_model_constant(constant: nn.Module, examine: Any) -> None:
    plain = examine(constant)
    nines = plain.y == 9
    chosen = {"x": plain.x[nines], "y": plain.y[nines], "index": plain.index[nines.numpy()]}
    assert CHECK(examine(constant, **chosen)) is not None


def test_healthy_models_stay_silent(healthy: dict[str, nn.Module], examine: Any) -> None:
    assert [CHECK(examine(model)) for model in healthy.values()] == [None] * 5


def test_queries_alone_need_no_gradient(robust: nn.Module, examine: Any, behind: Any) -> None:
    plain = examine(robust)
    assert CHECK(examine(behind(robust, Tensor.detach), report=plain.report)) is None


def test_parameters_keep_their_gradients(robust: nn.Module, examine: Any) -> None:
    CHECK(examine(robust))
    assert all(parameter.grad is None and parameter.requires_grad for parameter in robust.parameters())
