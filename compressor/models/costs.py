"""What a training step costs: operations for one image, counted from shapes and never assumed.

A multiply-add counts as 2 operations. Convolutions and matrix products count, products with the zeros of a padding
among them; normalisation, activations, losses and the optimizer do not (they are bound by memory, not by arithmetic).
Nothing is computed: everything runs on the meta device, where tensors have shapes and no values.

The counter is our own. ``torch.utils.flop_counter`` (torch 2.14) counts the weight gradient of a grouped convolution
as if it were dense, which makes a MobileNetV2's training seven times as costly as it is, and its module tracker fails
under ``torch.autograd.grad``, which attacks use.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from compressor.core.contracts import Batch, Method, Progress

# Two, since BatchNorm in train mode refuses one value a channel, which is what the smallest pictures end as.
_BATCH = 2
_CHANNELS = 3


@dataclass(frozen=True)
class StepCost:
    """Operations for one image of one training step.

    Attributes:
        teacher: the loop's question to the teacher, times the share of images for which it has to be asked.
        attack: the inner maximisation.
        outer: the method's own forwards (of the teacher too, if it makes any) and their backward.
    """

    teacher: float
    attack: int
    outer: int

    @property
    def total(self) -> float:
        """The whole step."""
        return self.teacher + self.attack + self.outer


def forward_operations(model: nn.Module, image_size: int) -> int:
    """Operations of one forward, for one image ``[3, image_size, image_size]``; the model is not changed."""
    model, x = _on_meta(model).eval(), _images(image_size)
    with _counting() as counter:
        model(x)
    return counter.per_image


def input_gradient_operations(model: nn.Module, image_size: int) -> int:
    """Operations of a forward and its backward to the image alone: one step of a gradient attack."""
    model, x = _on_meta(model).eval(), _images(image_size).requires_grad_()
    with _counting() as counter:
        torch.autograd.grad(model(x).sum(), x)
    return counter.per_image


def training_operations(model: nn.Module, image_size: int) -> int:
    """Operations of a forward and its backward to the parameters; the image takes no gradient."""
    model, x = _on_meta(model).train(), _images(image_size)
    with _counting() as counter:
        model(x).sum().backward()
    return counter.per_image


def step_cost(
    method: Method,
    student: nn.Module,
    teacher: nn.Module | None,
    *,
    image_size: int,
    attack_steps: int,
    asked: float = 1.0,
) -> StepCost:
    """What one training step of a method costs, by running the method's own ``inner`` and ``outer``.

    Args:
        method: with its settings.
        student: takes ``[B, 3, image_size, image_size]``; on any device, and not changed.
        teacher: the same, with as many classes; ``None`` where the method needs none.
        image_size: in pixels.
        attack_steps: gradients that the inner maximisation takes.
        asked: the share of images whose natural teacher logits are not in a cache: 1 without one, 0 with a warm one.
    """
    student = _on_meta(student)
    teacher = None if teacher is None else _on_meta(teacher).eval().requires_grad_(False)
    x = _images(image_size)
    classes = student.eval()(x).shape[1]
    y = torch.zeros(_BATCH, dtype=torch.int64, device="meta")
    logits = None if method.teacher_at != "natural" else torch.empty(_BATCH, classes, device="meta")
    batch = Batch(x, y, logits)
    return StepCost(
        teacher=_teacher_operations(method, teacher, image_size, asked),
        attack=_attack_operations(method, student, teacher, batch, attack_steps),
        outer=_outer_operations(method, student, teacher, batch),
    )


def share_of_new_variants(variants: int, epochs: int) -> float:
    """The expected share of epochs in which an image appears in a variant that it has not appeared in before.

    ``V (1 - (1 - 1/V)^E) / E``, since each epoch draws one of V variants uniformly and independently. It is the share
    of questions that a label cache, empty at first, passes on to the teacher.

    Args:
        variants: V, how many crops and flips an image has.
        epochs: E.
    """
    return variants * (1 - (1 - 1 / variants) ** epochs) / epochs


def _teacher_operations(method: Method, teacher: nn.Module | None, image_size: int, asked: float) -> float:
    """What the loop asks; a method that asks about adversarial images does so in its attack and its outer step."""
    if teacher is None or method.teacher_at != "natural":
        return 0.0
    return asked * forward_operations(teacher, image_size)


def _attack_operations(
    method: Method, student: nn.Module, teacher: nn.Module | None, batch: Batch, attack_steps: int
) -> int:
    student.train(method.attack_mode == "train")
    x_adv = torch.empty_like(batch.x).requires_grad_()
    # What `inner` computes itself, such as the logits of the natural images, serves all steps.
    with _counting() as once:
        objective = method.inner(student, teacher, batch)
    if objective is None:
        return once.per_image
    with _counting() as step:
        torch.autograd.grad(objective(x_adv, torch.arange(_BATCH, device="meta")).sum(), x_adv)
    return once.per_image + attack_steps * step.per_image


def _outer_operations(method: Method, student: nn.Module, teacher: nn.Module | None, batch: Batch) -> int:
    student.train()
    # Late in a run: a term that starts later is there for most of it.
    x_adv, progress = torch.empty_like(batch.x), Progress(epoch=999, epochs=1000, step=0, steps=1)
    with _counting() as counter:
        method.outer(student, teacher, batch, x_adv, progress)["total"].backward()  # type: ignore[no-untyped-call]
    return counter.per_image


def _images(image_size: int) -> Tensor:
    return torch.empty(_BATCH, _CHANNELS, image_size, image_size, device="meta")


def _on_meta(model: nn.Module) -> nn.Module:
    """A copy whose tensors have shapes and no memory; all its parameters take gradients."""
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(torch.empty_like(parameter, device="meta")) for parameter in model.parameters()
    }
    memo |= {id(buffer): torch.empty_like(buffer, device="meta") for buffer in model.buffers()}
    return copy.deepcopy(model, memo)


@contextmanager
def _counting() -> Iterator[_Counter]:
    """Count what runs inside the block, with gradients on whatever the caller's mode is."""
    with torch.enable_grad(), _Counter() as counter:
        yield counter


class _Counter(TorchDispatchMode):
    """Adds up the multiply-adds of every convolution and matrix product that runs inside it, forward or backward."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.multiply_adds = 0

    @property
    def per_image(self) -> int:
        """Operations for one image of the batch."""
        return 2 * self.multiply_adds // _BATCH

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        count = _COUNTS.get(func.overloadpacket)
        if count is not None:
            self.multiply_adds += count(args, result)
        return result


def _convolution(args: tuple[Any, ...], result: Tensor) -> int:
    """Multiply-adds of ``(x, weight, bias, stride, padding, dilation, transposed, ...)``."""
    x, weight, transposed = args[0], args[1], args[6]
    return _convolution_products(x, weight, result, transposed=transposed)


def _convolution_backward(args: tuple[Any, ...], result: object) -> int:
    """Multiply-adds of ``(output's gradient, x, weight, ..., transposed, ..., which gradients are wanted)``.

    The gradient to the input and the gradient to the weight each use every product of the forward once.
    """
    gradient, x, weight, transposed, (to_input, to_weight, _) = args[0], args[1], args[2], args[7], args[10]
    return (int(to_input) + int(to_weight)) * _convolution_products(x, weight, gradient, transposed=transposed)


def _convolution_products(x: Tensor, weight: Tensor, output: Tensor, *, transposed: bool) -> int:
    """Every output value (every input value, if transposed) meets one filter, which spans its own group only."""
    return (x if transposed else output).numel() * weight[0].numel()


def _product(args: tuple[Any, ...], result: Tensor) -> int:
    """Multiply-adds of ``[..., m, k] @ [..., k, n]``."""
    return result.numel() * int(args[0].shape[-1])


def _added_product(args: tuple[Any, ...], result: Tensor) -> int:
    """Multiply-adds of ``c + a @ b``; the addition rides along."""
    return _product(args[1:], result)


_aten = torch.ops.aten
_COUNTS: dict[Any, Callable[[tuple[Any, ...], Any], int]] = {
    _aten.convolution: _convolution,
    _aten.convolution_backward: _convolution_backward,
    _aten.mm: _product,
    _aten.bmm: _product,
    _aten.addmm: _added_product,
    _aten.baddbmm: _added_product,
}
