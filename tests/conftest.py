"""Stand-ins for a GPU, for every test: how often it would be waited for, and whether tensors would mix devices."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).parents[1]
OURS = tuple(str(ROOT / room) for room in ("compressor", "exporters", "cli"))

THREADS = torch.get_num_threads()


@pytest.fixture(autouse=True)
def threads_as_at_the_start() -> Iterator[None]:
    """Commands and functions set torch's threads for the process; the next test begins as the first one did.

    Two test processes that each compute on two threads make each other many times slower.
    """
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(THREADS)


# What a GPU must have finished everything before: a number is read, or a tensor's shape depends on values.
_WAITING = {
    "_local_scalar_dense", "is_nonzero", "item", "equal",
    "nonzero", "masked_select", "unique_dim", "_unique2", "unique_consecutive",
}  # fmt: skip
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}


class Waits(TorchDispatchMode):
    """Counts, on a CPU, how often a GPU would be waited for if the tensors were there.

    Every tensor is taken for one of the GPU, but for those marked by ``host``, those that ``.cpu()`` or NumPy gave,
    those that a generator drew (an evaluation's generators are the CPU's), and what is computed from them alone. With
    ``.to`` and a device a tensor comes to the GPU.

    Attributes:
        places: ``file:line function`` of our own code, with how often it waits there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.places: Counter[str] = Counter()
        self._patch = pytest.MonkeyPatch()

    def host(self, *tensors: Tensor) -> None:
        """Say of tensors that they are on the CPU."""
        for tensor in tensors:
            tensor._on_host = True

    def functions(self) -> dict[str, int]:
        """How often in each ``file function``."""
        found: Counter[str] = Counter()
        for place, count in self.places.items():
            where, function = place.split(" ")
            found[f"{where.split(':')[0]} {function}"] += count
        return dict(found)

    def files(self) -> dict[str, int]:
        """How often in each file."""
        found: Counter[str] = Counter()
        for place, count in self.places.items():
            found[place.split(":")[0]] += count
        return dict(found)

    def __enter__(self) -> Any:
        bring, read, wrap = Tensor.to, Tensor.tolist, torch.from_numpy

        def to(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            moved = bring(tensor, *args, **kwargs)
            if _on_host(tensor) and any(isinstance(given, (torch.device, str)) for given in (*args, *kwargs.values())):
                moved = tensor.detach() if moved is tensor else moved
                moved._on_host = False
            return moved

        def cpu(tensor: Tensor) -> Tensor:
            if _on_host(tensor):
                return tensor
            self.places[_place()] += 1
            copied = tensor.detach()
            copied._on_host = True
            return copied

        def tolist(tensor: Tensor) -> Any:
            return read(tensor.cpu())

        def from_numpy(array: Any) -> Tensor:
            tensor = wrap(array)
            tensor._on_host = True
            return tensor

        for name, method in {"to": to, "cpu": cpu, "tolist": tolist}.items():
            self._patch.setattr(Tensor, name, method)
        self._patch.setattr(torch, "from_numpy", from_numpy)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patch.undo()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        is_host = all(map(_on_host, tensors)) if tensors else kwargs.get("generator") is not None
        if not is_host and _waits(func.overloadpacket.__name__, args):
            self.places[_place()] += 1
        result = func(*args, **kwargs)
        if is_host:
            self.host(*(leaf for leaf in torch.utils._pytree.tree_leaves(result) if isinstance(leaf, Tensor)))
        return result


def _on_host(tensor: Tensor) -> bool:
    return getattr(tensor, "_on_host", False)


def _waits(name: str, args: Any) -> bool:
    if name not in _INDEXING:
        return name in _WAITING
    return any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1])


def _place() -> str:
    """The innermost line of our own code."""
    for frame in reversed(traceback.extract_stack()):
        if frame.filename.startswith(OURS):
            return f"{Path(frame.filename).relative_to(ROOT)}:{frame.lineno} {frame.name}"
    return "tests:0 test"


@pytest.fixture
def waits() -> Waits:
    """Counts inside ``with waits:``."""
    return Waits()


class PretendedGPU:
    """Tensors that say that they are on ``cuda:0``, without a GPU and without values.

    Whatever mixes them with tensors of the CPU raises, and so does whatever reads a value, since there is none.
    """

    device = torch.device("cuda", 0)

    def images(self, batch: int, channels: int = 3, side: int = 16) -> Tensor:
        """Float32 ``[B, C, S, S]``."""
        return torch.empty(batch, channels, side, side, device=self.device)

    def labels(self, batch: int) -> Tensor:
        """Int64 ``[B]``."""
        return torch.zeros(batch, dtype=torch.int64, device=self.device)


@contextmanager
def _pretend(patch: pytest.MonkeyPatch) -> Iterator[PretendedGPU]:
    from torch._subclasses.fake_tensor import FakeTensorMode

    def no_values(outputs: Any, inputs: Any, **_: Any) -> tuple[Tensor, ...]:
        # Autograd needs a real device's queue. Its own formulas keep to one device, so the shapes are enough here.
        leaves = [inputs] if isinstance(inputs, Tensor) else inputs
        return tuple(torch.empty_like(leaf) for leaf in leaves)

    with patch.context() as inner, FakeTensorMode():
        inner.setattr(torch.autograd, "grad", no_values)
        yield PretendedGPU()


@pytest.fixture
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[], AbstractContextManager[PretendedGPU]]:
    """``with pretended_gpu() as gpu:`` what the block makes on ``gpu.device`` is there, seemingly."""
    return lambda: _pretend(monkeypatch)
