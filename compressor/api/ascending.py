"""``ascend`` for any objective and any images, with a number for its radius and a seed for its start."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from torch import Tensor

from compressor.core.contracts import Objective
from compressor.core.errors import UsageError
from compressor.core.types import Norm, Threat, eps_text
from compressor.numerics import ascent
from compressor.numerics.randomness import make_generator


def ascend(
    objective: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    *,
    eps: str | float = "8/255",
    norm: Norm = "Linf",
    steps: int = 10,
    step_size: float | None = None,
    start: ascent.Start = "uniform",
    seed: int = 0,
) -> Tensor:
    """Maximise an objective over a ball around each image by projected steepest ascent.

    Args:
        objective: ``(x_adv [b, C, H, W], index [b]) -> [b]``: a value for each image, a function of that image alone;
            ``index`` says where the images lie in ``x``. An image whose value is ``+inf`` stays where it is.
        x: images ``[B, C, H, W]`` in [0, 1]; left as they are.
        eps: the radius, such as ``8 / 255`` or ``"8/255"``.
        norm: ``Linf`` or ``L2``.
        steps: how many gradients are taken; at least 1.
        step_size: length of a step, in units of the pixel range (default: a quarter of ``eps``).
        start: ``none``, ``uniform`` or ``gaussian``.
        seed: names the random numbers of the start.

    Returns:
        Images ``[B, C, H, W]`` in the ball and in [0, 1], detached.

    Raises:
        UsageError: the radius or the number of steps makes no sense.

    Source: Madry et al. 2018, equation 3.

    Example:
        >>> import torch
        >>> from compressor import ascend
        >>> x = torch.full((2, 3, 4, 4), 0.5)
        >>> brighter = ascend(lambda x_adv, index: x_adv.sum((1, 2, 3)), x, eps=0.1)
        >>> torch.allclose(brighter, x + 0.1)
        True
    """
    if steps < 1:
        raise UsageError(f"an ascent of {steps} steps is none.", "Take at least 1.")
    threat = Threat(norm, eps_text(eps))
    return ascent.ascend(
        cast(Objective, objective),
        x,
        threat,
        make_generator(seed, "ascend", device=x.device),
        steps=steps,
        step_size=threat.radius / 4 if step_size is None else step_size,
        start=start,
        start_scale=0.001 if start == "gaussian" else 1.0,
    )
