"""A computation recorded once on a GPU and replayed: all its kernels then cost one launch."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_WARM_UPS = 3  # libraries choose algorithms and allocate on first use, which a graph cannot record


class Recording(NamedTuple):
    """A recorded computation: ``replay`` computes it again on the same memory and leaves the result in ``output``."""

    output: Tensor
    replay: Callable[[], None]


Recorder = Callable[[Callable[[], Tensor]], Recording]


def record_cuda_graph(compute: Callable[[], Tensor]) -> Recording:
    """Record a computation as a CUDA graph.

    Args:
        compute: reads fixed memory, waits for nothing and draws nothing.

    Raises:
        RuntimeError: it does what a graph cannot hold.
    """
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UPS):
            compute()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # Only this thread's calls are recorded: another one pins memory for the next batch meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        output = compute()
    return Recording(output, graph.replay)
