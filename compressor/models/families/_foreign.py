"""What the families share whose networks are written elsewhere: in a library, or by the user."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from compressor.core.contracts import Recognition
from compressor.core.errors import UnknownNameError, UsageError
from compressor.core.types import ModelSpec

_SMALL = "+small"


def member_of(name: str, library: str, known: Collection[str]) -> tuple[str, bool]:
    """The library's own name in ``LIBRARY:NAME`` or ``LIBRARY:NAME+small``, and whether the stem is to be small.

    Raises:
        UsageError: no name follows the library's.
        UnknownNameError: the library has no such network; near misses are suggested.
    """
    head, _, member = name.partition(":")
    if head != library or not member:
        raise UsageError(
            f"the model {name!r} names no network of {library}.",
            f"Write {library}:NAME, or {library}:NAME+small for small pictures.",
        )
    small = member.endswith(_SMALL)
    member = member.removesuffix(_SMALL)
    if member not in known:
        near = difflib.get_close_matches(member, known, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"See list_models() of {library}: {len(known)} names."
        raise UnknownNameError(f"{library} has no model {member!r}.", hint)
    return member, small


def recognise_nothing(state: Mapping[str, Tensor]) -> Recognition | None:
    """No key tells the network: many share theirs, and the stem leaves no trace. The user names it instead."""
    return None


def require_logits(network: nn.Module, spec: ModelSpec) -> nn.Module:
    """Return the network if it gives logits for images of the spec's size, in training as in evaluation.

    Args:
        network: not changed; a copy of it is asked, with two images, on its own device.
        spec: its size and its classes.

    Raises:
        UsageError: its forward fails at this size, or gives something other than ``[B, K]``.
    """
    asked = copy.deepcopy(network)
    device = next((tensor.device for tensor in (*asked.parameters(), *asked.buffers())), torch.device("cpu"))
    side = spec.image_size
    # Dropout draws from torch's own generator, which is not ours to move.
    with torch.device(device), torch.no_grad(), torch.random.fork_rng(devices=[]):
        for training in (True, False):
            try:
                logits = asked.train(training)(torch.zeros(2, 3, side, side))
            except Exception as error:  # a network's own code may raise anything
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
                raise UsageError(
                    f"{spec.name} cannot take images of {side} x {side} pixels ({reason}).",
                    "Choose another network or --image-size; +small keeps small pictures larger where there is a stem.",
                ) from error
            if not isinstance(logits, Tensor) or logits.shape != (2, spec.classes):
                given = list(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
                raise UsageError(
                    f"{spec.name} gives {given} for 2 images, and logits [2, {spec.classes}] are needed.",
                    "Choose a network that gives its logits alone, in training too.",
                )
    return network
