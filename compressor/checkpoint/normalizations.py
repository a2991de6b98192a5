"""The normalisations that published checkpoints were trained with, by the names the command line uses."""

from __future__ import annotations

from compressor.core.registry import unknown_name
from compressor.core.types import Normalization

_NAMED: dict[str, Normalization | None] = {
    "none": None,
    "cifar10": Normalization((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
    "cifar100": Normalization((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "half": Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


def named_normalization(name: str) -> Normalization | None:
    """What ``name`` stands for: ``none`` is raw [0, 1], ``half`` maps it to [-1, 1], the others whiten a dataset.

    Raises:
        UnknownNameError: there is no such normalisation.
    """
    if name not in _NAMED:
        raise unknown_name("normalization", name, list(_NAMED))
    return _NAMED[name]


def normalization_name(normalization: Normalization | None) -> str:
    """The name of a normalisation, or its numbers where it has none."""
    for name, named in _NAMED.items():
        if named == normalization:
            return name
    assert normalization is not None  # None is named
    return f"mean {normalization.mean}, std {normalization.std}"


def plausible_normalizations(classes: int, *, inside_forward: bool) -> tuple[Normalization | None, ...]:
    """What a checkpoint that does not say may expect, likeliest first.

    Args:
        classes: 100 means CIFAR-100's statistics, any other count CIFAR-10's: the two are too alike to be told apart.
        inside_forward: the family's public code normalises where the state dict cannot show it.
    """
    dataset = _NAMED["cifar100" if classes == 100 else "cifar10"]
    return (dataset, None, _NAMED["half"]) if inside_forward else (None, dataset, _NAMED["half"])
