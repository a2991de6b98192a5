"""What tells a member of a family: the numbers in its name, such as ``wideresnet-34-10``, and sizes in a state dict."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from compressor.core.errors import UsageError

# Far beyond any published member, and small enough that a hostile name cannot ask for a network without end.
_LARGEST_DEPTH, _LARGEST_WIDTH, _LARGEST_MULTIPLIER = 1000, 64, 8


def width_multiplier(name: str, family: str) -> float:
    """The factor on all channels in ``FAMILY`` (1) or ``FAMILY-WIDTH``.

    Args:
        name: the whole name, such as ``mobilenetv2-0.25``.
        family: the family's name, such as ``mobilenetv2``.

    Raises:
        UsageError: not a number above 0 and at most 8 with at most three decimals.
    """
    hint = f"Write {family}, or {family}-WIDTH with a factor on its channels, such as {family}-0.5."
    if name == family:
        return 1.0
    text = name.removeprefix(f"{family}-")
    if not re.fullmatch(r"[0-9](\.[0-9]{1,3})?", text):
        raise UsageError(f"the width in {name!r} is not a number with at most three decimals.", hint)
    if not 0 < float(text) <= _LARGEST_MULTIPLIER:
        raise UsageError(f"the width in {name!r} is not above 0 and at most {_LARGEST_MULTIPLIER}.", hint)
    return float(text)


def with_width(family: str, multiplier: float) -> str:
    """The name of the member whose channels are ``multiplier`` times the family's: the inverse of the above."""
    return family if multiplier == 1 else f"{family}-{multiplier:g}"


def depth_and_width(name: str, family: str) -> tuple[int, int]:
    """Depth and widening factor in ``FAMILY-DEPTH-WIDTH``.

    Raises:
        UsageError: not two whole numbers, a depth that is not 6n + 4, or numbers beyond any use.
    """
    hint = f"Write {family}-DEPTH-WIDTH, such as {family}-34-10; the depth is 10, 16, 22, 28, 34, 40, ..."
    found = re.fullmatch(r"-([0-9]{1,4})-([0-9]{1,3})", name.removeprefix(family))
    if not found:
        raise UsageError(f"the model {name!r} has no depth and width that can be read.", hint)
    depth, width = int(found[1]), int(found[2])
    if depth % 6 != 4 or not 10 <= depth <= _LARGEST_DEPTH:
        raise UsageError(f"the depth {depth} in {name!r} is not 6n + 4 with n from 1 to 166.", hint)
    if not 1 <= width <= _LARGEST_WIDTH:
        raise UsageError(f"the width {width} in {name!r} is not from 1 to {_LARGEST_WIDTH}.", hint)
    return depth, width


def scaled_channels(channels: int, multiplier: float) -> int:
    """``channels * multiplier`` as a multiple of 8: the nearest, but at least 8 and never more than 10 % below.

    Multiples of 8 keep narrow members fast on mobile hardware; the rule is that of the MobileNet papers' code.
    """
    exact = channels * multiplier
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * exact else rounded


def rows(state: Mapping[str, Tensor], key: str, dimensions: int) -> int:
    """The size of the first axis of ``state[key]``: the output channels of a layer.

    Returns:
        0 where the key is absent or its tensor has not ``dimensions`` axes.
    """
    tensor = state.get(key)
    return tensor.shape[0] if tensor is not None and tensor.dim() == dimensions else 0


def block_count(keys: Iterable[str], prefix: str) -> int:
    """How many different numbers follow ``prefix``: with ``layer1.`` the blocks of ``layer1.0.conv1.weight``, ..."""
    heads = {key[len(prefix) :].partition(".")[0] for key in keys if key.startswith(prefix)}
    return sum(head.isascii() and head.isdigit() for head in heads)
