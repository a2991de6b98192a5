"""The frozen twin itself: what a gradient attack differentiates instead of the model."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compressor.frozen.folding import fold
from compressor.models.modes import module_mode
from compressor.numerics.randomness import make_generator
from compressor.system.devices import full_float32

LOG = logging.getLogger("compressor.frozen")

FrozenPrecision = Literal["fp32", "bf16"]

_DTYPES: dict[FrozenPrecision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
# How far a folded copy's logits may be from the model's, as a part of the largest: rounding, never a wrong graph.
_TOLERANCES: dict[FrozenPrecision, float] = {"fp32": 1e-3, "bf16": 0.1}
# As many bytes in either precision: 32 or 64 images of 32 x 32.
_PIXELS_AT_ONCE: dict[FrozenPrecision, int] = {"fp32": 32 * 32 * 32, "bf16": 64 * 32 * 32}
_FEWEST_AT_ONCE = 4

_Folded = tuple[nn.Module, Callable[[], None]]


class FrozenTwin(nn.Module):
    """A copy of a model in eval mode, made for input gradients: BatchNorm folded, channels-last, no weight gradients.

    Where the model cannot be traced, or its folded copy does not agree with it, the twin is a plain copy in float32.

    Attributes:
        precision: what its layers compute in; images and logits are float32 all the same.
        chunk: on how many images to take a gradient at once: so few that their activations stay in a CPU's cache;
            ``None`` where all at once is best. Each image's gradient is its own, so this is a matter of speed.
        folded: whether folding succeeded.

    Args:
        model: logits ``[B, K]`` from images; not changed, and read again at each ``refresh``.
        sample: float images ``[B, C, H, W]`` in [0, 1] on the model's device, to check the copy with.
        precision: see above.
        folded: a network and its refresh that were made from this model already.
    """

    chunk: int | None

    def __init__(
        self, model: nn.Module, sample: Tensor, precision: FrozenPrecision = "fp32", *, folded: _Folded | None = None
    ) -> None:
        super().__init__()
        folded = folded or _try_folding(model, sample, precision)
        self.folded = folded is not None
        self.precision: FrozenPrecision = precision if folded else "fp32"
        self.chunk = chunk_for(model, sample, self.precision)
        self.network, self._refresh = folded or _plain_copy(model)

    def refresh(self) -> None:
        """Take over the model's present parameters and running statistics."""
        self._refresh()

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, K]``, float32, of float32 images ``[B, C, H, W]`` in [0, 1]."""
        logits: Tensor = self.network(x.contiguous(memory_format=torch.channels_last))
        return logits.float()

    def train(self, mode: bool = True) -> FrozenTwin:
        """Stay in eval mode, whatever is asked."""
        return self


def chunk_of(model: nn.Module) -> int | None:
    """On how many images at once to take this model's gradients; ``None`` where it does not matter."""
    chunk = getattr(model, "chunk", None)
    return chunk if isinstance(chunk, int) else None


def folded_twin(model: nn.Module, sample: Tensor, precision: FrozenPrecision = "fp32") -> FrozenTwin | None:
    """The folded twin of a model that no longer changes.

    Args:
        model: logits ``[B, K]`` from images; not changed.
        sample: float images ``[B, C, H, W]`` in [0, 1] on the model's device.
        precision: what its layers compute in.

    Returns:
        ``None`` where the model cannot be folded, or gives other logits then; it need not even be copied.
    """
    folded = _try_folding(model, sample, precision)
    return None if folded is None else FrozenTwin(model, sample, precision, folded=folded)


@torch.no_grad()
def in_chunks(model: Callable[[Tensor], Tensor], x: Tensor, chunk: int | None) -> Tensor:
    """Logits ``[B, K]`` of images ``[B, C, H, W]``, ``chunk`` images at once; ``None`` takes all."""
    return torch.cat([model(part) for part in torch.split(x, chunk or max(len(x), 1))])


def chunk_for(model: nn.Module, sample: Tensor, precision: FrozenPrecision = "fp32") -> int | None:
    """On how many images like the sample's to take gradients at once: few on a CPU; ``None`` takes all.

    Args:
        model: what is differentiated.
        sample: images ``[B, C, H, W]`` on its device.
        precision: what its layers compute in.
    """
    # Without running statistics BatchNorm uses the batch's own: its images can't be parted.
    coupled = any(isinstance(m, _BatchNorm) and m.running_mean is None for m in model.modules())
    if sample.device.type != "cpu" or coupled:
        return None
    return max(_FEWEST_AT_ONCE, _PIXELS_AT_ONCE[precision] // (sample.shape[2] * sample.shape[3]))


@full_float32()  # TF32 rounds by about as much as a folded copy may differ
def _try_folding(model: nn.Module, sample: Tensor, precision: FrozenPrecision) -> _Folded | None:
    """The folded network and its refresh, or None where it cannot be made or does not compute what the model does."""
    try:
        is_right = _follows_a_moving_model(model, sample)
        folded = fold(model, _DTYPES[precision])
        off = _disagreement(model, folded.graph, sample)
    except Exception as error:  # tracing runs the model's own code on stand-ins, and that may raise anything
        LOG.info("the model is attacked as it is: it cannot be folded (%s: %s)", type(error).__name__, error)
        return None
    if not (is_right and off <= _TOLERANCES[precision]):
        LOG.warning("the model is attacked as it is: its folded copy gives other logits")
        return None
    return folded.graph, folded.refresh


def _follows_a_moving_model(model: nn.Module, sample: Tensor) -> bool:
    """Whether a folded copy agrees after parameters and buffers have moved and it was refreshed.

    A fresh BatchNorm is almost the identity, and a number read while tracing is right on that day: both would hide a
    wrong graph. It is looked at in float32, where little moves show.
    """
    moving = copy.deepcopy(model)
    folded = fold(moving, torch.float32)
    _move(moving)
    folded.refresh()
    return _disagreement(moving, folded.graph, sample) <= _TOLERANCES["fp32"]


@torch.no_grad()
def _disagreement(model: nn.Module, network: nn.Module, sample: Tensor) -> float:
    """By how much a network's logits differ from the model's in eval mode, as a part of the largest."""
    with module_mode(model, training=False):
        expected = model(sample).float()
    found = network(sample.contiguous(memory_format=torch.channels_last)).float()
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))


@torch.no_grad()
def _move(model: nn.Module) -> None:
    """Change every floating-point parameter and buffer a little, and BatchNorm's as much as training does."""
    generator = make_generator("frozen twin", "check")

    def noise(tensor: Tensor) -> Tensor:
        return torch.rand(tensor.shape, generator=generator).to(tensor)

    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            tensor.mul_(0.95 + 0.1 * noise(tensor))  # one on average: a deep network multiplies what its layers add
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            # In units of what is normalised: a tenth of nothing in particular would swamp a layer of small values, and
            # the network would be so chaotic that rounding alone looked like a wrong graph.
            if module.running_mean is not None and module.running_var is not None:
                spread = (module.running_var + module.eps).sqrt()
                module.running_mean.add_(spread * (0.2 * noise(module.running_mean) - 0.1))
            if module.bias is not None:
                module.bias.add_(0.2 * noise(module.bias) - 0.1)
            for scale in (module.running_var, module.weight):
                if scale is not None:
                    scale.mul_(0.75 + 0.5 * noise(scale))


def _plain_copy(model: nn.Module) -> _Folded:
    copied = copy.deepcopy(model).eval().requires_grad_(False)
    pairs = [
        (mine, theirs)
        for mine, theirs in zip(
            (*copied.parameters(), *copied.buffers()), (*model.parameters(), *model.buffers()), strict=True
        )
    ]

    @torch.no_grad()
    def refresh() -> None:
        for mine, theirs in pairs:
            mine.copy_(theirs)

    return copied, refresh
