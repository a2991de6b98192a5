"""BatchNorm's running statistics, estimated anew for weights that were never trained as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compressor.models.modes import module_mode
from compressor.system.process_group import ProcessGroup


@torch.no_grad()
def estimate_statistics(
    model: nn.Module, images: Iterable[Tensor], process_group: ProcessGroup, on_batch: Callable[[], None] = lambda: None
) -> None:
    """Set every running mean and variance to the mean, over batches, of what the batches have.

    Only the BatchNorm layers are in training mode: the statistics are those of the model as it will be used, without
    dropout, and nothing is drawn.

    Args:
        model: on its device; modes and momenta are left as they were, and nothing else of it changes.
        images: ``[B, C, H, W]`` in [0, 1], this process's; not read where there is no BatchNorm.
        process_group: the processes; all get the mean of their statistics.
        on_batch: called before each batch; may raise to stop, which leaves the statistics half made.

    Source: Izmailov et al. 2018, section 3.2.
    """
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    with module_mode(model, training=False):
        try:
            for layer in layers:
                layer.train()
                layer.reset_running_stats()
                layer.momentum = None  # the cumulative mean
            for x in images:
                on_batch()
                model(x)
        finally:
            for layer, momentum in zip(layers, momenta, strict=True):
                layer.momentum = momentum
    process_group.average_([buffer for layer in layers for buffer in layer.buffers() if buffer.is_floating_point()])
