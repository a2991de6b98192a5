"""Number types: ONNX never promotes, and neither does the importer."""

from __future__ import annotations

import torch
from torch import Tensor


def alike(*operands: Tensor) -> tuple[Tensor, ...]:
    """The operands in one type: integers that the image's own values meet, which Cast keeps in float, become float too.

    Raises:
        TypeError: they are of several types otherwise. Torch would promote, and so hide a wrong file.
    """
    types = {operand.dtype for operand in operands}
    if len(types) == 1:
        return operands
    floats = {dtype for dtype in types if dtype.is_floating_point}
    if len(floats) != 1 or torch.bool in types:
        raise TypeError("the operands are of several types")
    (dtype,) = floats
    return tuple(operand.to(dtype) for operand in operands)
