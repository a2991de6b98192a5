"""Taking off what training scripts wrap around a state dict: outer keys, prefixes, normalisers, attackers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from compressor.core.errors import UnreadableCheckpointError
from compressor.core.types import Normalization

# In the order in which they are tried. `model_state_dict` stands beside `unaveraged_model_state_dict` in the files of
# those who average weights, and is the averaged copy.
OUTER_KEYS = ("model_state_dict", "state_dict", "net", "model", "rmodel", "ema", "last", "best")
# DataParallel and AveragedModel; wrappers; nn.Sequential(normaliser, network) and the reverse; torch.compile.
PREFIXES = ("module.", "model.", "0.", "1.", "network.", "net.", "_orig_mod.")

_DEEPEST = 8
_MEAN_LEAVES = ("mean", "new_mean", "mu")
_STD_LEAVES = ("std", "new_std", "sigma")


@dataclass(frozen=True)
class Unwrapped:
    """A bare state dict, and what the wrapping said: the classes, the normalisation, and notes for people."""

    state: dict[str, Tensor]
    classes: int | None
    normalization: Normalization | None
    notes: tuple[str, ...]


def unwrap(document: Any, path: Path) -> Unwrapped:
    """Find the state dict in what a checkpoint file holds, and give its tensors the network's own names.

    Args:
        document: what was read: a dictionary, of tensors or of dictionaries.
        path: the file, for messages.

    Raises:
        UnreadableCheckpointError: there are no tensors in it.
    """
    state, siblings, notes = _descend(document, path)
    tensors = {key: value for key, value in state.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if len(tensors) < len(state):
        notes.append(f"left out {len(state) - len(tensors)} entries that are not tensors")
    tensors = {key: tensor for key, tensor in tensors.items() if not _is_bookkeeping(key)}
    normalizer, network = split_normalizer(tensors)
    if not network:
        raise UnreadableCheckpointError(
            f"{path} holds no weights.", "Give a file that holds a state dict: names and tensors."
        )
    stated = _normalization(siblings.get("mean"), siblings.get("std"))
    classes = siblings.get("n_classes", siblings.get("num_classes"))
    return Unwrapped(
        state=strip_prefixes(network),
        classes=classes if isinstance(classes, int) else None,
        normalization=normalizer or stated,
        notes=tuple(notes),
    )


def strip_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take off known prefixes, again and again, as long as every key has the same one.

    Every key: a network that happens to have a layer called ``0`` keeps its names.
    """
    stripped = dict(state)
    while stripped:
        prefix = next((p for p in PREFIXES if all(key.startswith(p) for key in stripped)), None)
        if prefix is None:
            break
        stripped = {key.removeprefix(prefix): tensor for key, tensor in stripped.items()}
    return stripped


def split_normalizer(state: Mapping[str, Tensor]) -> tuple[Normalization | None, dict[str, Tensor]]:
    """Part the buffers of a normaliser, wherever a wrapper put it, from the network's tensors.

    Returns:
        the normalisation (``None`` where there is none or its numbers are no normalisation), and all other tensors.
    """
    means = [tensor for key, tensor in state.items() if _leaf(key) in _MEAN_LEAVES]
    stds = [tensor for key, tensor in state.items() if _leaf(key) in _STD_LEAVES]
    rest = {key: tensor for key, tensor in state.items() if _leaf(key) not in _MEAN_LEAVES + _STD_LEAVES}
    return _normalization(means[0] if means else None, stds[0] if stds else None), rest


def _descend(document: Any, path: Path) -> tuple[Mapping[Any, Any], dict[str, Any], list[str]]:
    siblings: dict[str, Any] = {}
    notes: list[str] = []
    for _ in range(_DEEPEST):
        if not isinstance(document, Mapping):
            break
        outer = next((key for key in OUTER_KEYS if isinstance(document.get(key), Mapping)), None)
        if outer is None:
            return document, siblings, notes
        others = [key for key in OUTER_KEYS if key != outer and isinstance(document.get(key), Mapping)]
        if others:
            notes.append(f"took the weights under {outer!r} and left those under {', '.join(map(repr, others))}")
        siblings.update({key: value for key, value in document.items() if isinstance(key, str) and key != outer})
        document = document[outer]
    raise UnreadableCheckpointError(
        f"{path} holds {_kind(document)} where a state dict should be.",
        "Give a file that holds a state dict: names and tensors.",
    )


def _kind(document: Any) -> str:
    return "dictionaries without end" if isinstance(document, Mapping) else f"a {type(document).__name__}"


def _is_bookkeeping(key: str) -> bool:
    """A counter of weight averaging, or MadryLab's attacker, which repeats the whole network."""
    return _leaf(key) == "n_averaged" or "attacker" in key.split(".")[:-1]


def _leaf(key: str) -> str:
    return key.rpartition(".")[2]


def _normalization(mean: Any, std: Any) -> Normalization | None:
    means, stds = _channels(mean), _channels(std)
    if means is None or stds is None or not all(0 <= m <= 1 for m in means) or not all(0 < s <= 1 for s in stds):
        return None
    return Normalization(means, stds)


def _channels(value: Any) -> tuple[float, ...] | None:
    """One number for each of three channels, read from a tensor or a list of one or three."""
    if isinstance(value, Tensor):
        # Six digits are what float32 holds: 0.4914 comes back as it was written.
        numbers = [float(f"{number:.6g}") for number in value.flatten().tolist()] if value.numel() in (1, 3) else []
    elif isinstance(value, list | tuple):
        numbers = [float(number) for number in value if isinstance(number, int | float)]
    else:
        numbers = []
    if len(numbers) not in (1, 3) or not all(map(math.isfinite, numbers)):
        return None
    return tuple(numbers) if len(numbers) == 3 else (numbers[0],) * 3
