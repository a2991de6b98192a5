"""The processes that train one model together: who we are, and the few sums that all of them take part in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from compressor.system import launch

COLLECTIVE_TIMEOUT = timedelta(hours=6)
"""How long processes wait for one another: they meet seldom while they attack, and a batch of AutoAttack is long."""


@dataclass(frozen=True)
class ProcessGroup:
    """One process among ``size``; every method is to be called by all of them, in the same order.

    Attributes:
        rank: our number, from 0; process 0 writes and speaks for all.
        size: how many there are; 1 where nothing was launched, and then every method returns at once.
        device: where the numbers of a sum are put: NCCL wants them on the GPU.
    """

    rank: int = 0
    size: int = 1
    device: torch.device | None = None

    @classmethod
    def current(cls, device: torch.device) -> ProcessGroup:
        """The process group that a launcher has set up, or a team of one."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size(), device)

    @classmethod
    def enter(cls, device: torch.device) -> ProcessGroup:
        """Join the processes that a launcher started; a team of one where there was none.

        Args:
            device: this process's: a launcher's environment has decided its number.
        """
        if launch.world_size() > 1 and not dist.is_initialized():
            from accelerate import PartialState

            PartialState(cpu=device.type == "cpu", timeout=COLLECTIVE_TIMEOUT)
        return cls.current(device)

    @property
    def is_main(self) -> bool:
        """Whether we are process 0."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Add up each of a few numbers over all processes, in float64 where the device has it."""
        return self._reduce(values, dist.ReduceOp.SUM) if self.size > 1 else list(values)

    def maximum(self, values: Sequence[int]) -> list[int]:
        """The largest, over all processes, of each of a few numbers."""
        return [int(v) for v in self._reduce(values, dist.ReduceOp.MAX)] if self.size > 1 else list(values)

    def maximum_(self, array: NDArray[np.signedinteger[Any]]) -> None:
        """Replace each number of an array by the largest over all processes."""
        if self.size == 1:
            return
        shared = torch.from_numpy(array.astype(np.int32)).to(self.device or "cpu")
        dist.all_reduce(shared, op=dist.ReduceOp.MAX)
        array[...] = shared.cpu().numpy()

    def from_main(self, text: str) -> str:
        """What process 0 says, in every process; what the others say is dropped."""
        if self.size == 1:
            return text
        mine = np.frombuffer(text.encode() if self.is_main else b"", dtype=np.uint8)
        (length,) = self.maximum([len(mine)])
        said = np.zeros(length, dtype=np.int16)
        said[: len(mine)] = mine
        self.maximum_(said)
        return said.astype(np.uint8).tobytes().decode()

    def average_(self, tensors: Sequence[Tensor]) -> None:
        """Replace floating tensors by their mean over all processes, in one exchange."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.detach().float().flatten() for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.size
        with torch.no_grad():
            for tensor, mean in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
                tensor.copy_(mean.view_as(tensor))

    def gather(self, tensor: Tensor) -> Tensor:
        """Every process's tensor, one after the other along the first axis; all have the same shape."""
        if self.size == 1:
            return tensor
        mine = tensor.to(self.device).contiguous()
        parts = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(parts, mine)
        return torch.cat(parts)

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.size > 1:
            dist.barrier()

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Let process 0 go through the block before the others: it makes what they then find.

        Where it fails, the others go on and meet the same error, rather than wait for it until the end of time.
        """
        if not self.is_main:
            self.wait()
        try:
            yield
        finally:
            if self.is_main:
                self.wait()

    def _reduce(self, values: Sequence[float], operation: dist.ReduceOp.RedOpType) -> list[float]:
        numbers = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(numbers, op=operation)
        reduced: list[float] = numbers.tolist()
        return reduced


def leave_process_group() -> None:
    """End the process group, if there is one: the last thing that a launched process does.

    A group left to the interpreter's end has threads that still run then, which now and then aborts the process: the
    launcher would call a finished job failed.
    """
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
