"""A quick measurement: clean and PGD accuracy and soft-label entropy, for selection and the look at a teacher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compressor.core.types import Threat
from compressor.frozen import FrozenTwin, chunk_of, in_chunks
from compressor.models.modes import module_mode
from compressor.numerics.ascent import ascend
from compressor.numerics.augment import to_float_tensor
from compressor.numerics.losses import cross_entropy
from compressor.numerics.randomness import make_generator
from compressor.system.devices import full_float32
from compressor.system.process_group import ProcessGroup

_SAMPLE = 8


@dataclass(frozen=True)
class QuickAccuracy:
    """Counts over ``samples`` images; ``entropy`` is the mean of the softmax on natural images, in nats."""

    samples: int
    clean_correct: int
    robust_correct: int
    entropy: float

    @property
    def clean(self) -> float:
        """Fraction of natural images classified correctly."""
        return self.clean_correct / self.samples

    @property
    def robust(self) -> float:
        """Fraction of images classified correctly before and after PGD."""
        return self.robust_correct / self.samples


@full_float32()
def measure(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    steps: int,
    seed: int,
    device: torch.device,
    batch_size: int = 250,
    process_group: ProcessGroup = ProcessGroup(),  # noqa: B008 - a frozen value
    on_batch: Callable[[], None] = lambda: None,
    twin: FrozenTwin | None = None,
) -> QuickAccuracy:
    """Measure ``model`` in eval mode with PGD on cross-entropy: steps of eps/4, uniform start.

    Gradients are those of its frozen twin in float32; the model itself judges. A GPU is waited for twice a batch, for
    the logits and for the images that are still right under attack, besides what the ascent asks.

    Args:
        model: a classifier on ``device``; left as it was found.
        images: uint8 ``[N, C, H, W]``.
        labels: int64 ``[N]``.
        threat: the ball.
        steps: of PGD.
        seed: of the starts; they are the same at every call, so that epochs are compared on equal terms.
        device: where to compute.
        batch_size: images at a time.
        process_group: the processes that share the batches out among them; all get the same counts.
        on_batch: called before each batch; may raise to stop.
        twin: the model's, up to date; ``None`` makes one.
    """
    clean = robust = 0
    entropy = 0.0
    starts = list(range(0, len(labels), batch_size))
    with module_mode(model, training=False):
        attacked = twin or (model if isinstance(model, FrozenTwin) else twin_of(model, images, device))
        for first in starts[process_group.rank :: process_group.size]:
            on_batch()
            x = to_float_tensor(images[first : first + batch_size].to(device))
            y = labels[first : first + batch_size]
            logits = in_chunks(model, x, chunk_of(attacked)).cpu()  # the one wait: what follows from them is cheap
            entropy += _entropy(logits)
            correct = torch.nonzero(logits.argmax(1) == y).squeeze(1)
            clean += len(correct)
            if len(correct) == 0:
                continue
            x, y = x[correct.to(device)], y[correct].to(device)
            generator = make_generator(seed, "measure", first, device=device)

            def objective(x_adv: Tensor, index: Tensor, y: Tensor = y) -> Tensor:
                return cross_entropy(attacked(x_adv), y[index])

            step_size = threat.radius / 4
            chunk = chunk_of(attacked)
            x_adv = ascend(
                objective, x, threat, generator, steps=steps, step_size=step_size, chunk=chunk, early_exit=False
            )
            robust += int((in_chunks(model, x_adv, chunk_of(attacked)).argmax(1) == y).sum())
    clean_all, robust_all, entropy_all = process_group.sum([clean, robust, entropy])
    return QuickAccuracy(len(labels), int(clean_all), int(robust_all), entropy_all / len(labels))


def twin_of(model: nn.Module, images: Tensor, device: torch.device) -> FrozenTwin:
    """The model's twin in float32, checked on the first of the uint8 images ``[N, C, H, W]``."""
    return FrozenTwin(model, to_float_tensor(images[:_SAMPLE].to(device)))


def _entropy(logits: Tensor) -> float:
    """Sum over images of ``-sum_k p_k log p_k`` of logits on the CPU, where float64 is; an underflow adds 0."""
    log_p = logits.double().log_softmax(1)
    return -float((log_p.exp() * log_p).sum())
