"""Each training image's last perturbation, kept so that the next attack on it can begin where the last one ended.

An image comes back cropped and mirrored otherwise, so a perturbation is kept in the frame of the padded picture and cut
out of it like the picture itself. Source: Zheng et al. 2020, "Efficient Adversarial Training With Transferable
Adversarial Examples" (ATTA), section 4.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from compressor.numerics.augment import crop_padding, cut_variants, paste_variants

_LEVELS = 127


class Perturbations:
    """int8 ``[N, C, S + 2p, S + 2p]`` in units of eps / 127, zero where nothing is known.

    Args:
        images: N, how many are trained on.
        channels: C.
        image_size: S.
        radius: eps, in units of the pixel range.
    """

    def __init__(self, images: int, channels: int, image_size: int, radius: float) -> None:
        side = image_size + 2 * crop_padding(image_size)
        self._frames = torch.zeros(images, channels, side, side, dtype=torch.int8)
        self._unit = radius / _LEVELS

    def recall(self, index: Tensor, variants: Tensor) -> Tensor:
        """The perturbations of these variants ``[B, C, S, S]``, float32; zero where an image was not seen yet."""
        return cut_variants(self._frames[index], variants).to(torch.float32) * self._unit

    def keep(self, index: Tensor, variants: Tensor, delta: Tensor) -> None:
        """Remember perturbations ``[B, C, S, S]`` of these variants; what lies outside their crop stays as it was."""
        levels = (delta.cpu() / self._unit).round_().clamp_(-_LEVELS, _LEVELS).to(torch.int8)
        index = index.cpu()
        self._frames[index] = paste_variants(self._frames[index], levels, variants.cpu())

    def state_dict(self) -> dict[str, Tensor]:
        """What a resumed run needs."""
        return {"frames": self._frames}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take it over; the shape must be the same."""
        self._frames.copy_(state["frames"])
