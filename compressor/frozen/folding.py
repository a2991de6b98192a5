"""From a module to a graph in which BatchNorm is part of the convolution before it.

In eval mode BatchNorm is a constant affine map, ``(z - mean) * s + beta`` with ``s = gamma / sqrt(var + eps)``. After a
convolution ``z = W x + b`` it is that convolution with the weights ``W * s`` and the bias ``(b - mean) * s + beta``.
"""

from __future__ import annotations

import copy
import operator
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compressor.frozen.convolution import FrozenConvolution

_RELUS = (torch.relu, F.relu)
_SUMS = (operator.add, torch.add, operator.iadd)


@dataclass(frozen=True)
class Folded:
    """A traced copy of a module, and how to bring it up to date.

    Attributes:
        graph: computes what the module computes in eval mode; of the given type inside its layers.
        refresh: copies the module's present parameters and buffers into the graph.
    """

    graph: fx.GraphModule
    refresh: Callable[[], None]


def fold(model: nn.Module, dtype: torch.dtype) -> Folded:
    """Trace a module and fold every BatchNorm that follows a convolution directly.

    Args:
        model: any module that ``torch.fx`` can trace; not changed.
        dtype: what its layers compute in; whatever lies between them follows.

    Raises:
        Exception: of any kind that tracing raises; the caller has another way.
    """
    frozen = copy.deepcopy(model).eval().requires_grad_(False)
    graph = fx.GraphModule(frozen, _Tracer().trace(frozen))
    layers = dict(graph.named_modules())
    calls = Counter(str(node.target) for node in graph.graph.nodes if node.op == "call_module")
    updates: list[Callable[[], None]] = []
    copied: set[str] = set()

    for node in list(graph.graph.nodes):
        if node.op != "call_module" or str(node.target) in copied:
            continue
        name, layer = str(node.target), layers[str(node.target)]
        copied.add(name)
        if isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros":
            convolution = FrozenConvolution(layer, dtype)
            _replace(graph, name, convolution)
            normalization = _batch_norm_after(node, layers, calls) if calls[name] == 1 else None
            if normalization is not None:
                normalization.replace_all_uses_with(node)
                copied.add(str(normalization.target))
                graph.graph.erase_node(normalization)
            norm_name = None if normalization is None else str(normalization.target)
            updates.append(_convolution_update(model, name, norm_name, convolution))
        elif any(True for _ in _tensors(layer)):
            layer.to(dtype=dtype, memory_format=torch.channels_last)
            _replace(graph, name, _Converting(layer, dtype))
            updates.append(_copy_update(model.get_submodule(name), layer))
    updates += _loose_updates(model, graph)
    _rectify_in_place(graph)
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    graph.recompile()
    graph.eval()

    @torch.no_grad()
    def refresh() -> None:
        for update in updates:
            update()

    refresh()
    return Folded(graph, refresh)


class _Tracer(fx.Tracer):
    """Leaves linear layers whole, a library's own kinds of them too, whose forward reads their weights."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Linear) or super().is_leaf_module(m, module_qualified_name)


class _Converting(nn.Module):
    """A layer that takes any floating type and computes in its own."""

    def __init__(self, layer: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.layer, self.dtype = layer, dtype

    def forward(self, x: Tensor, *rest: Tensor, **named: Tensor) -> Tensor:
        y: Tensor = self.layer(x.to(self.dtype), *rest, **named)
        return y


def _batch_norm_after(node: fx.Node, layers: dict[str, nn.Module], calls: Counter[str]) -> fx.Node | None:
    """The BatchNorm that alone uses this node's value, if it has running statistics and is called once."""
    if len(node.users) != 1:
        return None
    (user,) = node.users
    if user.op != "call_module" or calls[str(user.target)] != 1 or len(user.all_input_nodes) != 1:
        return None
    layer = layers[str(user.target)]
    return user if isinstance(layer, _BatchNorm) and layer.running_mean is not None else None


def _convolution_update(
    model: nn.Module, name: str, norm_name: str | None, convolution: FrozenConvolution
) -> Callable[[], None]:
    source = cast(nn.Conv2d, model.get_submodule(name))
    norm: Any = None if norm_name is None else model.get_submodule(norm_name)

    def update() -> None:
        weight: Tensor = source.weight
        bias: Tensor | None = source.bias
        if norm is not None:
            scale = (norm.running_var + norm.eps).rsqrt()
            scale = scale if norm.weight is None else scale * norm.weight
            shift = -norm.running_mean if bias is None else bias - norm.running_mean
            bias = shift * scale if norm.bias is None else shift * scale + norm.bias
            weight = weight * scale.reshape(-1, 1, 1, 1)
        convolution.refresh(weight, bias)

    return update


def _copy_update(source: nn.Module, layer: nn.Module) -> Callable[[], None]:
    pairs = list(zip(_tensors(layer), _tensors(source), strict=True))

    def update() -> None:
        for mine, theirs in pairs:
            mine.copy_(theirs)

    return update


def _loose_updates(model: nn.Module, graph: fx.GraphModule) -> Iterator[Callable[[], None]]:
    """Updates of what the graph reads directly, such as a classifier's mean and standard deviation; its type stays."""
    for target in {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}:
        owner, _, name = target.rpartition(".")
        mine, theirs = getattr(graph.get_submodule(owner), name), getattr(model.get_submodule(owner), name)
        if isinstance(mine, Tensor):
            yield lambda mine=mine, theirs=theirs: mine.copy_(theirs)  # type: ignore[misc]


def _rectify_in_place(graph: fx.GraphModule) -> None:
    """Let a ReLU overwrite its input where nobody else reads it: one pass over the memory less."""
    layers = dict(graph.named_modules())
    for node in graph.graph.nodes:
        is_function = (
            node.op == "call_function" and node.target in _RELUS and node.kwargs.get("inplace") in (None, False)
        )
        is_module = node.op == "call_module" and type(layers[str(node.target)]) is nn.ReLU
        if not (is_function or is_module) or len(node.args) != 1:
            continue
        (source,) = node.all_input_nodes
        made_by_layer = source.op == "call_module" and isinstance(
            layers[str(source.target)], (FrozenConvolution, _Converting)
        )
        made_by_sum = source.op == "call_function" and source.target in _SUMS
        # These don't keep their result for the backward pass, so it may change under them.
        if len(source.users) == 1 and (made_by_layer or made_by_sum):
            node.op, node.target, node.kwargs = "call_function", torch.relu_, {}


def _replace(graph: fx.GraphModule, name: str, layer: nn.Module) -> None:
    owner, _, attribute = name.rpartition(".")
    setattr(graph.get_submodule(owner), attribute, layer)


def _tensors(layer: nn.Module) -> Iterator[Tensor]:
    """A layer's floating-point parameters and buffers, in a fixed order."""
    for tensor in (*layer.parameters(), *layer.buffers()):
        if tensor.is_floating_point():
            yield tensor
