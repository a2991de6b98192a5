"""Float32 or bfloat16 for a frozen model: whichever is clearly faster on this machine, found by a short measurement."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from compressor.frozen.graphs import record_cuda_graph
from compressor.frozen.twin import FrozenPrecision, FrozenTwin

_ROUNDS = 5
_CLEARLY_FASTER = 1.1


def choose_precision(model: nn.Module, sample: Tensor, *, with_gradient: bool) -> FrozenPrecision:
    """Time a model's twin in both precisions.

    The two are timed in turns and the best of a few counts, and bfloat16 must win by 10 %: a busy machine should not
    change the choice, which decides the last bits of a run.

    Args:
        model: logits from images; not changed.
        sample: images ``[B, C, H, W]`` in [0, 1] on its device, as many as are computed at once.
        with_gradient: whether the gradient with respect to the input is wanted too.

    Returns:
        ``bf16`` or ``fp32``; the latter also where folding fails, since only a folded twin computes in bfloat16.
    """
    single, half = FrozenTwin(model, sample), FrozenTwin(model, sample, "bf16")
    if half.precision != "bf16":
        return "fp32"
    computations = {
        twin.precision: _replayed(_computation(twin, sample, with_gradient=with_gradient), sample.device)
        for twin in (single, half)
    }
    best = {"fp32": float("inf"), "bf16": float("inf")}
    for _ in range(_ROUNDS):
        for precision, compute in computations.items():
            best[precision] = min(best[precision], _seconds(compute, sample.device))
    del single, half, computations, compute
    gc.collect()  # traced graphs hold themselves, and a large teacher's are worth gigabytes
    return "bf16" if best["bf16"] * _CLEARLY_FASTER <= best["fp32"] else "fp32"


def _computation(twin: FrozenTwin, sample: Tensor, *, with_gradient: bool) -> Callable[[], Tensor]:
    def compute() -> Tensor:
        if not with_gradient:
            with torch.no_grad():
                logits: Tensor = twin(sample)
            return logits
        x = sample.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(twin(x).sum(), x)
        return gradient

    return compute


def _replayed(compute: Callable[[], Tensor], device: torch.device) -> Callable[[], object]:
    """On a GPU the recorded computation: launching small kernels one by one takes equally long in every precision."""
    if device.type != "cuda":
        return compute
    try:
        return record_cuda_graph(compute).replay
    except RuntimeError:
        return compute


def _seconds(compute: Callable[[], object], device: torch.device) -> float:
    _wait_for(device)
    started = time.perf_counter()
    compute()
    _wait_for(device)
    return time.perf_counter() - started


def _wait_for(device: torch.device) -> None:
    """A GPU's work is queued: without waiting, the time measured would be the queueing's."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
