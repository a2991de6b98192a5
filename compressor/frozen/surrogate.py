"""A surrogate that attacks differentiate: it proposes images, and only the model that it replaces decides."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from compressor.frozen.twin import FrozenPrecision, chunk_of, folded_twin, in_chunks
from compressor.models.modes import module_mode
from compressor.numerics.losses import cw_margin, is_wrong

LOG = logging.getLogger("compressor.frozen")

# Two computations of one model in float32 differ by less than this part of its logits' range.
_LEAST_UNCERTAINTY = 1e-5


class Surrogate(nn.Module):
    """A fast differentiable proposer, and the model that alone decides.

    An attack follows the proposer's gradients and calls ``confirm_misclassified``. The model then computes its own
    logits only of images that the proposer misclassifies, or comes so close to misclassifying that the two may differ.
    So an image is broken only when the model itself misclassifies it, and hardly any forward pass is spent on that.

    Attributes:
        proposer: logits ``[B, K]`` from images, with a gradient.
        decider: the model: logits ``[B, K]`` from the same images; its gradient is never used.
        uncertainty: margins up to this part of an image's range of logits are confirmed by the model.
        chunk: on how many images at once to take gradients; the proposer's own unless given; see ``FrozenTwin``.
        finisher: a surrogate of the same model whose proposer is more exact, for an attack's last small steps; ``None``
            where there is none.
    """

    chunk: int | None
    finisher: Surrogate | None

    def __init__(
        self,
        proposer: nn.Module,
        decider: nn.Module,
        uncertainty: float,
        *,
        chunk: int | None = None,
        finisher: Surrogate | None = None,
    ) -> None:
        super().__init__()
        self.proposer, self.decider, self.finisher = proposer, decider, finisher
        self.uncertainty = max(uncertainty, _LEAST_UNCERTAINTY)
        self.chunk = chunk or chunk_of(proposer)

    def forward(self, x: Tensor) -> Tensor:
        """The proposer's logits ``[B, K]`` of images ``[B, C, H, W]`` in [0, 1]."""
        logits: Tensor = self.proposer(x)
        return logits

    @torch.no_grad()
    def confirm_misclassified(self, x: Tensor, y: Tensor, logits: Tensor) -> Tensor:
        """Whether the model gets each image wrong, bool ``[B]``.

        Args:
            x: images ``[B, C, H, W]`` in [0, 1].
            y: labels ``[B]``.
            logits: the proposer's logits of these images, ``[B, K]``.
        """
        spread = logits.amax(1) - logits.amin(1)
        # Written so that logits that are not finite are asked about.
        asked = ~(cw_margin(logits, y) < -self.uncertainty * spread)
        wrong = torch.zeros_like(asked)
        places = torch.nonzero(asked).squeeze(1)
        if len(places):
            wrong[places] = is_wrong(in_chunks(self.decider, x[places], self.chunk), y[places])
        return wrong


def surrogate_of(model: nn.Module, sample: Tensor, precision: FrozenPrecision = "fp32") -> nn.Module:
    """What attacks should differentiate instead of a model.

    Args:
        model: logits ``[B, K]`` from images; it decides, and is not changed.
        sample: float images ``[B, C, H, W]`` in [0, 1] on its device, to check the copy with.
        precision: what the proposer computes in.

    Returns:
        A surrogate whose proposer is the model's folded twin (in float32 where bfloat16 is too far off), or the model
        itself where it cannot be folded or has nothing to fold.
    """
    # A module without parameters computes somewhere else, and its gradients may be of its own making.
    exact = folded_twin(model, sample) if any(True for _ in model.parameters()) else None
    if exact is None:
        return model
    finisher = Surrogate(exact, model, uncertainty_between(exact, model, sample))
    if precision == "fp32":
        return finisher
    coarse = folded_twin(model, sample, precision)
    if coarse is None:
        LOG.warning("proposals are made in fp32: in %s this model gives too different logits", precision)
        return finisher
    return Surrogate(coarse, model, uncertainty_between(coarse, model, sample), finisher=finisher)


def confirm_misclassified(model: nn.Module, x: Tensor, y: Tensor, logits: Tensor) -> Tensor:
    """Whether a model errs on each image, bool ``[B]``, given the logits that an attack has of it already.

    Args:
        model: in eval mode; of a surrogate the model that it replaces decides.
        x: images ``[B, C, H, W]`` in [0, 1].
        y: labels ``[B]``.
        logits: ``model(x)``, ``[B, K]``.
    """
    return (
        model.confirm_misclassified(x, y, logits.detach())
        if isinstance(model, Surrogate)
        else is_wrong(logits.detach(), y)
    )


def decider_of(model: nn.Module) -> nn.Module:
    """The module that decides for a model under attack: the one that a surrogate stands for, else the model itself."""
    return model.decider if isinstance(model, Surrogate) else model


def finisher_of(model: nn.Module) -> Surrogate | None:
    """The more exact surrogate for an attack's last steps, where a model under attack has one."""
    return model.finisher if isinstance(model, Surrogate) else None


@torch.no_grad()
def uncertainty_between(proposer: nn.Module, model: nn.Module, sample: Tensor) -> float:
    """The largest margin at which the model may err where the proposer does not, as a part of the range of logits.

    Twice the largest difference between the two's logits that the sample shows.

    Args:
        proposer: logits ``[B, K]`` from images, in eval mode.
        model: the same function, computed otherwise.
        sample: images ``[B, C, H, W]`` in [0, 1].
    """
    with module_mode(model, training=False):
        expected = model(sample).float()
    spread = (expected.amax(1) - expected.amin(1)).clamp_min(torch.finfo(torch.float32).tiny)
    off = (proposer(sample) - expected).abs().amax(1) / spread
    return 2 * float(off.max())
