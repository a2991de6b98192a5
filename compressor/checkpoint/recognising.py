"""Which family a state dict belongs to, and what to say of those we know by sight and cannot load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from torch import Tensor

from compressor.checkpoint.unwrapping import strip_prefixes
from compressor.core.contracts import ModelFamily, Recognition
from compressor.core.errors import UnknownArchitectureError
from compressor.core.registry import MODELS
from compressor.core.types import ModelSpec
from compressor.models.classifier import build_empty_network

# Keys that tell an architecture, and what to call it; the first that fits is taken, the narrower ones come first.
_SIGHTS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("layer1.0.conv1.weight", "fc.weight"), "a torchvision ResNet (with `fc`, where CIFAR ports have `linear`)"),
    (("features.0.0.weight", "classifier.1.weight"), "a torchvision MobileNet or EfficientNet"),
    (("layer1.0.conv1.weight", "linear.weight", "bn1.weight"), "a CIFAR ResNet other than ResNet-18"),
    (("layer1.0.conv1.weight", "linear.weight"), "a CIFAR pre-activation ResNet"),
    (("layers.0.conv1.weight", "linear.weight"), "a CIFAR MobileNet or EfficientNet of another layout"),
    (("conv_2d.weight", "logits.weight"), "a DeepMind pre-activation ResNet other than ResNet-18"),
    (("block1.layer.0.conv1.weight",), "a WideResNet with a changed stem, width or classifier"),
    (("layer.0.block.0.conv_0.weight",), "a DeepMind WideResNet with a changed stem, width or classifier"),
    (("cls_token",), "a vision transformer"),
    (("features.0.weight",), "a VGG or AlexNet"),
)


def recognise(state: Mapping[str, Tensor]) -> Recognition:
    """Ask every family whether the state dict is one of its own.

    Args:
        state: tensors by the network's own names, without outer keys or prefixes.

    Raises:
        UnknownArchitectureError: it is none of them; a family known by sight is named.
    """
    for family in _families().values():
        recognition = family.recognise(state)
        if recognition is not None:
            return recognition
    stranger = _known_by_sight(state)
    if stranger:
        raise UnknownArchitectureError(
            f"the checkpoint holds {stranger}, whose keys do not tell which one it is.", _way_out()
        )
    keys = ", ".join(list(state)[:3])
    raise UnknownArchitectureError(f"the checkpoint is of no known family: its keys start with {keys}.", _way_out())


def is_named_by_user(model: str) -> bool:
    """Whether a model's state dict is recognised by no key, so that the user must say what it is of."""
    return ":" in model


def recognise_as(model: str, state: Mapping[str, Tensor], image_size: int) -> Recognition:
    """Take the user's word for a network whose keys tell nothing; what the tensors do tell is the number of classes.

    Args:
        model: ``torchvision:NAME``, ``timm:NAME`` or ``python:package.module:factory``.
        state: tensors by the network's own names, without outer keys or prefixes.
        image_size: the side of its images, in pixels.

    Raises:
        UnknownArchitectureError: the state dict has no last layer of that network.
        UnknownNameError, UsageError: there is no such network.
    """
    # The last layer is where two such networks of other class counts differ.
    few, more = (build_empty_network(ModelSpec(model, classes, image_size)).state_dict() for classes in (2, 3))
    # Reading took off prefixes that wrappers put on; a network may have one of its own.
    own_names = dict(zip(strip_prefixes(few), few, strict=True))
    named = {own_names.get(key, key): tensor for key, tensor in state.items()}
    for key, tensor in few.items():
        for axis, (size, other) in enumerate(zip(tensor.shape, more[key].shape, strict=True)):
            if size != other and key in named and named[key].dim() == tensor.dim():
                return Recognition(model, named[key].shape[axis], named)
    raise UnknownArchitectureError(
        f"the checkpoint does not fit {model}: it lacks the last layer.", "Name the network that it was saved from."
    )


def _families() -> dict[str, ModelFamily]:
    return {name: cast(ModelFamily, MODELS.get(name)) for name in MODELS.members()}


def _way_out() -> str:
    forms = ", ".join(family.form for family in _families().values())
    return (
        f"Give a checkpoint of one of these families: {forms}. Where the name has a colon, give it with --model (of a "
        "teacher: --teacher-model)."
    )


def _known_by_sight(state: Mapping[str, Tensor]) -> str | None:
    """The plain name of an architecture that people bring and no family of ours builds."""
    return next((name for keys, name in _SIGHTS if all(key in state for key in keys)), None)
