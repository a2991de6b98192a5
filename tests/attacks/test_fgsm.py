from __future__ import annotations

from typing import Any

import numpy as np
import torch

from compressor.core.registry import ATTACKS
from compressor.core.types import Threat
from compressor.numerics.randomness import make_generator


def test_it_is_the_image_plus_eps_times_the_sign_of_the_gradient(linear_digits: Any) -> None:
    model, x, y = linear_digits.model, linear_digits.x, linear_digits.y
    threat = Threat("Linf", "8/255")
    x_adv, _ = ATTACKS.get("fgsm")(model, x, y, threat, make_generator(0))
    # The gradient of the cross-entropy of a linear model, by hand: (p - onehot) W.
    weight, bias = (p.detach().double() for p in model[1].parameters())
    error = (x.double().flatten(1) @ weight.T + bias).softmax(1) - torch.nn.functional.one_hot(y, 10)
    right = (x.double().flatten(1) @ weight.T + bias).argmax(1) == y
    gradient = (error @ weight).view_as(x).numpy()
    eps = np.float32(threat.radius)
    expected = np.where(gradient > 0, x.numpy() + eps, np.where(gradient < 0, x.numpy() - eps, x.numpy())).clip(0, 1)
    assert right.sum() > 200
    np.testing.assert_array_equal(x_adv[right].numpy(), expected[right.numpy()])
    np.testing.assert_array_equal(x_adv[~right].numpy(), x[~right].numpy())


def test_it_draws_no_noise(linear_digits: Any) -> None:
    generator = make_generator(0)
    before = generator.get_state()
    ATTACKS.get("fgsm")(linear_digits.model, linear_digits.x, linear_digits.y, Threat(), generator)
    assert torch.equal(generator.get_state(), before)


def test_for_l2_it_takes_one_step_of_the_whole_radius(linear_digits: Any) -> None:
    x = linear_digits.x[:50] * 0.2 + 0.4
    y = linear_digits.model(x).argmax(1)
    x_adv, _ = ATTACKS.get("fgsm")(linear_digits.model, x, y, Threat("L2", "0.25"), make_generator(0))
    np.testing.assert_allclose((x_adv - x).flatten(1).norm(dim=1), 0.25, rtol=1e-5)
