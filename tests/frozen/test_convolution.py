"""Oracle: the library's own convolution in float64, on the very weights that the frozen one holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.frozen.convolution import FrozenConvolution

Off = Callable[[Tensor, Tensor], float]

# One rounding of the result: 2^-8 for bfloat16, some sums of 2^-24 for float32.
_TIGHT = {torch.float32: 2e-6, torch.bfloat16: 2**-7}


def compare(shape: dict[str, Any], dtype: torch.dtype, off: Off) -> str:
    """Check values and input gradients, and tell which way back was taken."""
    source = nn.Conv2d(**{"in_channels": 6, "out_channels": 6, "bias": True} | shape)
    frozen = FrozenConvolution(source, dtype)
    frozen.refresh(source.weight.detach(), None if source.bias is None else source.bias.detach())
    x = torch.rand(2, source.in_channels, 11, 9).to(dtype).requires_grad_()
    found = frozen(x)
    cotangent = torch.randn(found.shape).to(dtype)
    (back,) = torch.autograd.grad(found, x, cotangent)

    x64 = x.detach().double().requires_grad_()
    padding: Any = source.padding
    expected = F.conv2d(
        x64, frozen.weight.double(), frozen.bias.double(), source.stride, padding, source.dilation, source.groups
    )
    (expected_back,) = torch.autograd.grad(expected, x64, cotangent.double())
    assert found.dtype == back.dtype == dtype
    assert off(found.detach(), expected.detach()) < _TIGHT[dtype]
    assert off(back, expected_back) < _TIGHT[dtype]
    return type(found.grad_fn).__name__


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("padding", [0, 1, 2, (2, 0)])
@pytest.mark.parametrize("stride", [1, 2, (1, 2), 3])
@pytest.mark.parametrize("kernel", [3, 5, (3, 5), 4])
def test_depthwise_gradients(kernel: Any, stride: Any, padding: Any, dtype: torch.dtype, off: Off) -> None:
    shape = {"groups": 6, "kernel_size": kernel, "stride": stride, "padding": padding}
    assert compare(shape, dtype, off).startswith("_Depthwise")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "shape",
    [
        {"kernel_size": 1},
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": 3, "groups": 2},
        {"kernel_size": 3, "groups": 6, "out_channels": 12},
        {"kernel_size": 3, "groups": 6, "dilation": 2, "padding": 2},
        {"kernel_size": 3, "groups": 6, "padding": 3},
        {"kernel_size": 3, "groups": 6, "padding": "same"},
        {"kernel_size": 3, "groups": 6, "padding": "valid"},
        {"kernel_size": 3, "in_channels": 1, "out_channels": 1},
        {"kernel_size": 3, "bias": False},
    ],
    ids=str,
)
def test_all_others_go_the_librarys_way(shape: dict[str, Any], dtype: torch.dtype, off: Off) -> None:
    assert "Convolution" in compare(shape, dtype, off)


def test_a_depthwise_convolution_without_a_bias(off: Off) -> None:
    compare({"kernel_size": 3, "groups": 6, "bias": False, "padding": 1}, torch.float32, off)


def test_weights_take_no_gradient() -> None:
    frozen = FrozenConvolution(nn.Conv2d(3, 4, 3), torch.float32)
    assert not list(frozen.parameters())
    assert not any(buffer.requires_grad for buffer in frozen.buffers())


def test_inputs_of_another_type_are_converted() -> None:
    frozen = FrozenConvolution(nn.Conv2d(3, 4, 3), torch.bfloat16)
    frozen.refresh(torch.ones(4, 3, 3, 3), torch.ones(4))
    x = torch.ones(1, 3, 3, 3, requires_grad=True)
    found = frozen(x)
    assert found.dtype == torch.bfloat16
    assert found.unique().tolist() == [28.0]
    (back,) = torch.autograd.grad(found.sum(), x)
    assert back.dtype == torch.float32
    assert back.unique().tolist() == [4.0]
