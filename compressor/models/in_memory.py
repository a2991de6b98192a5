"""Networks that are modules in memory: the names that stand for them, ``module:CLASS-DIGEST``, and what builds them.

A checkpoint holds tensors and no code. In the process where a module was given, its name builds a copy of it; in
another process the module must be given again.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from compressor.core.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from compressor.core.contracts import ModelFamily
    from compressor.core.types import ModelSpec

_PREFIX = "module:"
_DIGITS = 12

_modules: dict[str, nn.Module] = {}


def is_in_memory(name: str) -> bool:
    """Whether a model's name stands for a module that was given in memory."""
    return name.startswith(_PREFIX)


def module_name(module: nn.Module) -> str:
    """Return the name that stands for a module: its class, and the first digits of the digest of what it is.

    Another module, or the same one with other weights, has another name.
    """
    return f"{_PREFIX}{type(module).__name__}-{digest_of_module(module)[:_DIGITS]}"


def keep_module(module: nn.Module) -> str:
    """Keep a copy of a module for this process, and return the name that builds it."""
    name = module_name(module)
    provide_module(name, module)
    return name


def provide_module(name: str, module: nn.Module) -> None:
    """Let ``name``, which a checkpoint records, build copies of ``module`` in this process."""
    _modules[name] = copy.deepcopy(module).cpu()


def digest_of_module(module: nn.Module) -> str:
    """Return the SHA-256 of a module's printed structure, its parameters and its buffers, as hexadecimal digits."""
    return digest_tensors(str(module), [*module.named_parameters(), *module.named_buffers()])


def digest_tensors(about: str, tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Return the SHA-256 of a text and of tensors with their names, types and shapes, as hexadecimal digits."""
    import torch

    digest = hashlib.sha256(about.encode())
    for name, tensor in tensors:
        digest.update(f"\x1f{name}\x1f{tensor.dtype}\x1f{tuple(tensor.shape)}\x1f".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def family_in_memory(name: str) -> ModelFamily:
    """Return what builds copies of the module that ``name`` stands for.

    Raises:
        UsageError: no module of that name was given in this process.
    """
    import torch

    from compressor.core.contracts import ModelFamily

    if name not in _modules:
        raise UsageError(
            f"the network {name} was a module in memory, and its code is not in the file.",
            "Build the module and give it: load_model(path, model=module) or attack(path, model=module).",
        )
    module = _modules[name]

    def build(spec: ModelSpec) -> nn.Module:
        built = copy.deepcopy(module)
        # The meta device asks for names and shapes alone.
        return built.to("meta") if torch.empty(0).is_meta else built

    return ModelFamily("module:CLASS-DIGEST", name, build, lambda state: None)
