"""The windows that Square proposes: where, how large, and what they do to an image in either norm.

Source: Andriushchenko et al. 2020, "Square Attack: a query-efficient black-box adversarial attack via random search",
algorithms 2 and 3. What is drawn for a proposal is drawn once for the whole batch, so that no image's result depends
on which other images are robust so far.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from functools import lru_cache

import torch
from torch import Generator, Tensor

from compressor.core.types import Threat

_FIRST_SHARE = 0.8
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_TILES = 5
_TINY = 1e-12


def window_share(query: int) -> float:
    """p: how much of the image a window covers; it halves after fixed numbers of queries, however many there will be.

    Args:
        query: how many were made before, the start not counted.
    """
    return float(_FIRST_SHARE / 2 ** bisect_left(_HALVINGS, query))


def start(x: Tensor, threat: Threat, generator: Generator) -> Tensor:
    """Where the search begins: for Linf vertical stripes of ``+-eps``, for L2 a grid of bumps of length eps.

    Args:
        x: images ``[B, C, H, W]`` in [0, 1].
        threat: the ball.
        generator: draws on its own device, so that one seed gives one start everywhere.

    Returns:
        Images ``[B, C, H, W]`` in the ball and in [0, 1].
    """
    batch, channels, height, width = x.shape
    if threat.norm == "Linf":
        return _stretch(x, _signs((batch, channels, 1, width), x, generator), threat)
    delta = torch.zeros_like(x)
    side = max(height // _TILES, 1)
    margin = max(height - side * _TILES, 0) // 2
    for top in range(margin, height - side + 1, side):
        for left in range(margin, width - side + 1, side):
            bump = _turned_bump(side, x, generator)
            signs = _signs((batch, channels, 1, 1), x, generator)
            delta[:, :, top : top + side, left : left + side] = bump * signs
    return _to_sphere(x, delta, threat)


def propose(best: Tensor, x: Tensor, threat: Threat, query: int, generator: Generator) -> Tensor:
    """The best images so far with one window changed, each channel its own way.

    Args:
        best: images ``[B, C, H, W]`` in the ball and in [0, 1].
        x: the natural images.
        threat: the ball.
        query: how many proposals were made before.
        generator: draws on its own device.

    Returns:
        Images ``[B, C, H, W]`` in the ball and in [0, 1].
    """
    return (_recolour if threat.norm == "Linf" else _move_mass)(best, x, threat, query, generator)


def _recolour(best: Tensor, x: Tensor, threat: Threat, query: int, generator: Generator) -> Tensor:
    """Linf: set a window to ``x + eps`` or ``x - eps``."""
    _, channels, height, width = x.shape
    side = min(max(_side(x, query), 1), height, width)
    window = _window(side, x, generator)
    signs = _signs((1, channels, 1, 1), x, generator)
    candidate = best.clone()
    candidate[window] = _stretch(x[window], signs, threat)
    return candidate


def _move_mass(best: Tensor, x: Tensor, threat: Threat, query: int, generator: Generator) -> Tensor:
    """L2: move the change of one window into another as a bump, with whatever of eps is unused, and clear the first."""
    _, channels, height, width = x.shape
    side = min(max(_side(x, query), 3) | 1, height, width)
    target, source = _window(side, x, generator), _window(side, x, generator)
    bump = _turned_bump(side, x, generator) * _signs((1, channels, 1, 1), x, generator)

    delta = best - x
    unused = (threat.radius**2 - delta.square().sum(dim=(1, 2, 3), keepdim=True)).clamp_min(0.0)
    old = delta[target].clone()
    delta[target] = 0.0
    mass = _squares(old) + _squares(delta[source])
    delta[source] = 0.0
    bump = bump + old / (_squares(old).sqrt() + _TINY)
    delta[target] = bump / (_squares(bump).sqrt() + _TINY) * (unused / channels + mass).sqrt()
    return _to_sphere(x, delta, threat)


def _side(x: Tensor, query: int) -> int:
    return round(math.sqrt(window_share(query) * x.shape[2] * x.shape[3]))


def _window(side: int, x: Tensor, generator: Generator) -> tuple[slice, slice, slice, slice]:
    """A square of that side anywhere in the images, as an index."""
    top, left = (_draw(length - side + 1, generator) for length in x.shape[2:])
    return slice(None), slice(None), slice(top, top + side), slice(left, left + side)


def _draw(choices: int, generator: Generator) -> int:
    """0 to ``choices - 1``, each as likely."""
    return int(torch.randint(choices, (), generator=generator, device=generator.device))


def _signs(shape: tuple[int, ...], x: Tensor, generator: Generator) -> Tensor:
    """+1 or -1, each as likely."""
    drawn = torch.randint(2, shape, generator=generator, device=generator.device)
    return (2 * drawn - 1).to(x)


def _stretch(x: Tensor, signs: Tensor, threat: Threat) -> Tensor:
    """As far from x as the Linf ball and [0, 1] let it."""
    return (x + threat.radius * signs).clamp(0.0, 1.0)


def _to_sphere(x: Tensor, delta: Tensor, threat: Threat) -> Tensor:
    """``clip_[0,1](x + eps delta / ||delta||_2)``."""
    length: Tensor = torch.linalg.vector_norm(delta, dim=(1, 2, 3), keepdim=True)
    return (x + delta * (threat.radius / (length + _TINY))).clamp(0.0, 1.0)


def _squares(delta: Tensor) -> Tensor:
    """Of each image's and channel's change, ``[B, C, 1, 1]``."""
    return delta.square().sum(dim=(2, 3), keepdim=True)


def _turned_bump(side: int, x: Tensor, generator: Generator) -> Tensor:
    """A bump, horizontal or vertical, each as likely."""
    bump = _bump(side).to(x)
    return bump.T if _draw(2, generator) else bump


@lru_cache(maxsize=64)
def _bump(side: int) -> Tensor:
    """Two hills, one up and one down, of unit length together: ``[side, side]``, float32. Not to be written to."""
    upper = side // 2
    bump = torch.cat([_hill(upper, side), -_hill(side - upper, side)])
    length: Tensor = torch.linalg.vector_norm(bump)
    return bump / length


def _hill(height: int, width: int) -> Tensor:
    """``sum_{k >= r} 1 / (k + 1)^2`` at Chebyshev distance r from the middle, of unit length: ``[height, width]``."""
    down = (torch.arange(height) - height // 2).abs().view(-1, 1)
    across = (torch.arange(width) - width // 2).abs().view(1, -1)
    distance = torch.arange(max(height, width) // 2 + 1, dtype=torch.float32)
    tails = (1 / (distance + 1).square()).flip(0).cumsum(0).flip(0)
    hill = tails[torch.maximum(down, across)]
    length: Tensor = torch.linalg.vector_norm(hill)
    return hill / length.clamp_min(_TINY)  # a hill of no rows has no length either
