"""The one projected-ascent loop: every gradient attack and every method's inner step is this, configured."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor

from compressor.core.contracts import Objective
from compressor.core.types import Threat

Start = Literal["none", "uniform", "gaussian"]


def ascend(
    objective: Objective,
    x: Tensor,
    threat: Threat,
    generator: Generator | None = None,
    *,
    steps: int,
    step_size: float,
    start: Start = "uniform",
    start_scale: float = 1.0,
    initial: Tensor | None = None,
    chunk: int | None = None,
    early_exit: bool = True,
) -> Tensor:
    r"""Maximise an objective over a ball by projected steepest ascent.

    ``x_{t+1} = clip_[0,1](P_ball(x_t + step_size * u_t))`` with ``u = sign(g)`` for Linf and ``g / ||g||_2`` for L2.

    Args:
        objective: ``(x_adv [b, C, H, W], index [b]) -> [b]``; an image whose value is ``+inf`` stays where it is. Where
            its gradient is NaN, that component does not move.
        x: natural images ``[B, C, H, W]`` in [0, 1]; not changed.
        threat: the norm and the radius of the ball.
        generator: draws the start; on its own device, so that one seed gives one start everywhere. ``None`` draws from
            torch's global generator.
        steps: how many gradients are taken.
        step_size: length of a step, in units of the pixel range.
        start: ``none`` begins at x; ``uniform`` in the ball times ``start_scale``, clipped to [0, 1]; ``gaussian`` at
            ``x + start_scale * N(0, 1)``, not clipped before the first step, as TRADES and RSLAD release it.
        start_scale: a fraction of the radius for ``uniform``, a standard deviation in pixel units for ``gaussian``.
        initial: where to begin instead, ``[B, C, H, W]`` in the ball; nothing is drawn then.
        chunk: on how many images at once a gradient is taken; ``None`` takes all. The objective's values are each
            image's own, so this changes speed and memory, and results by rounding alone.
        early_exit: whether images whose goal is reached leave the batch, which asks the device after every step.
            ``False`` keeps them in the batch, unmoved: pass it where the objective never returns ``+inf``, so that a
            GPU is never waited for.

    Returns:
        Images ``[B, C, H, W]`` in the ball and in [0, 1], detached, contiguous.

    Source: Madry et al. 2018, eq. 3; released code of TRADES and RSLAD for the Gaussian start.
    """
    x = x.detach()
    x_adv = draw_start(x, threat, generator, start, start_scale) if initial is None else initial.detach()
    active = torch.arange(len(x), device=x.device)
    for step in range(steps):
        if len(active) == 0:
            break
        whole = len(active) == len(x)
        candidate = x_adv if whole else x_adv[active]
        values, gradient = differentiate(objective, candidate, active, chunk or len(active))
        moved = project(candidate + step_size * _direction(gradient, threat), x if whole else x[active], threat)
        # A Gaussian start may lie outside the ball: a goal reached there is not reached inside, so the image goes on.
        inside = step > 0 or initial is not None or start != "gaussian"
        reached = torch.isposinf(values) & inside
        if not early_exit:
            x_adv = torch.where(reached.view(-1, 1, 1, 1), candidate, moved)
        elif bool(reached.any()):
            x_adv = x_adv.clone() if whole else x_adv
            x_adv[active[~reached]] = moved[~reached]
            active = active[~reached]
        elif whole:
            x_adv = moved
        else:
            x_adv[active] = moved
    return project(x_adv, x, threat).contiguous()


def differentiate(objective: Objective, x_adv: Tensor, index: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """An objective's values and gradients, a chunk of images after the other.

    Args:
        objective: ``(x_adv [b, C, H, W], index [b]) -> [b]``.
        x_adv: images ``[b, C, H, W]``; not changed.
        index: their positions in the batch, ``[b]``.
        chunk: how many images at once, at least 1.

    Returns:
        Values ``[b]`` and gradients ``[b, C, H, W]``, detached.
    """
    values: list[Tensor] = []
    gradients: list[Tensor] = []
    for part, positions in zip(torch.split(x_adv, chunk), torch.split(index, chunk), strict=True):
        images = part.detach().requires_grad_()
        with torch.enable_grad():
            value = objective(images, positions)
            gradients += torch.autograd.grad(value.sum(), images)
        values.append(value.detach())
    return torch.cat(values), torch.cat(gradients)


def project(x_adv: Tensor, x: Tensor, threat: Threat) -> Tensor:
    """Bring images into the ball and then into [0, 1]; what is in both already comes back unchanged.

    For Linf this is the nearest point of the intersection, exactly ``fl(x - eps) <= x' <= fl(x + eps)`` in x's dtype.
    For L2 the distance is at most eps to within the rounding of the last bit of each pixel.

    Args:
        x_adv: finite images ``[B, C, H, W]``, anywhere.
        x: the natural images ``[B, C, H, W]`` at the centres of the balls.
        threat: the norm and the radius.

    Returns:
        A new tensor ``[B, C, H, W]``.
    """
    eps = threat.radius
    if threat.norm == "Linf":
        # Bounds are computed as x - eps and x + eps in float32, the very test that a verifier applies later.
        return torch.minimum(torch.maximum(x_adv, x - eps), x + eps).clamp(0.0, 1.0)
    delta = x_adv - x
    distance = _l2(delta)
    outside = distance > eps
    shrunk = x + delta * (eps / torch.where(outside, distance, 1.0))
    return torch.where(outside, shrunk, x_adv).clamp(0.0, 1.0)


def draw_corners(x: Tensor, threat: Threat, generator: Generator) -> Tensor:
    """Change every pixel by the radius, up or down at random: ``[B, C, H, W]`` in [0, 1].

    The signs are drawn on the generator's device, the CPU, so that they are the same on every device.
    """
    signs = 2.0 * torch.randint(0, 2, x.shape, generator=generator).to(x.device) - 1
    return (x + threat.radius * signs).clamp(0, 1)


def draw_start(x: Tensor, threat: Threat, generator: Generator | None, start: Start, scale: float) -> Tensor:
    """Draw where an ascent begins; the generator's own device draws, so that one seed gives one start everywhere.

    Args:
        x: natural images ``[B, C, H, W]`` in [0, 1]; not changed.
        threat: the norm and the radius of the ball.
        generator: draws; ``None`` stands for torch's global generator.
        start: see ``ascend``.
        scale: ``start_scale`` of ``ascend``.

    Returns:
        A new tensor ``[B, C, H, W]``.
    """
    if start == "none":
        return x.clone()
    device = x.device if generator is None else generator.device

    def normal() -> Tensor:
        return torch.randn(x.shape, generator=generator, device=device, dtype=x.dtype).to(x.device)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=device, dtype=x.dtype).to(x.device)

    if start == "gaussian":
        return x + scale * normal()
    if threat.norm == "Linf":
        return (x + scale * threat.radius * (2 * uniform(*x.shape) - 1)).clamp(0.0, 1.0)
    # Uniform in an L2 ball of d dimensions: a Gaussian direction, and a radius that is the d-th root of a uniform.
    noise, radius = normal(), uniform(len(x))
    radius = radius.pow(1.0 / x[0].numel()).view(-1, 1, 1, 1) if len(x) else radius.view(-1, 1, 1, 1)
    return (x + scale * threat.radius * radius * noise / _l2(noise).clamp_min(1e-12)).clamp(0.0, 1.0)


def _direction(gradient: Tensor, threat: Threat) -> Tensor:
    """The steepest direction of unit length; zero where the gradient is zero or not a number."""
    gradient = gradient.nan_to_num(nan=0.0)
    if threat.norm == "Linf":
        return gradient.sign()
    # Squares of a vanishing gradient underflow: scale by the largest component first, so that its size never matters.
    tiny = torch.finfo(gradient.dtype).tiny
    gradient = gradient / gradient.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(tiny)
    return gradient / _l2(gradient).clamp_min(tiny)


def _l2(tensor: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(tensor, dim=(1, 2, 3), keepdim=True)
    return norm
