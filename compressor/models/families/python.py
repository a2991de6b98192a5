"""Your own network: python:package.module:factory, called as factory(num_classes=K)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from compressor.core.contracts import ModelFamily
from compressor.core.errors import UnknownArchitectureError, UsageError
from compressor.core.types import ModelSpec
from compressor.models.families._foreign import recognise_nothing, require_logits
from compressor.models.families._layers import require_relu
from compressor.models.user_code import load_user_code


def _build(spec: ModelSpec) -> nn.Module:
    """``factory(num_classes=K)``, with ``image_size=S`` too where the factory takes it.

    Raises:
        UsageError: the factory fails, or what it returns is no network of images to logits.
        UnsafeCheckpointError: see ``load_user_code``.
        UnknownArchitectureError: the spec records another source than the module's.
    """
    require_relu(spec)
    code = load_user_code(spec.name)
    if spec.source_sha256 not in (None, code.sha256):
        raise UnknownArchitectureError(
            f"{spec.name} is not the code that the checkpoint was made with: its source file has SHA-256 "
            f"{code.sha256}, and {spec.source_sha256} is recorded.",
            "Bring back the source file of that digest.",
        )
    sizes: dict[str, Any] = {"num_classes": spec.classes}
    if _takes(code.factory, "image_size"):
        sizes["image_size"] = spec.image_size
    # On the CPU even where only shapes are wanted: code of unknown habits may read its own numbers while it is made.
    wants_shapes_only = torch.get_default_device().type == "meta"
    with torch.device("cpu"), torch.random.fork_rng(devices=[], enabled=wants_shapes_only):
        try:
            network = code.factory(**sizes)
        except Exception as error:  # the factory is the user's, and may raise anything
            raise UsageError(
                f"{spec.name} failed ({type(error).__name__}: {error}).",
                "It is called as factory(num_classes=K), and with image_size=S where it takes that.",
            ) from error
    if not isinstance(network, nn.Module):
        raise UsageError(f"{spec.name} gave a {type(network).__name__}.", "It must return a torch.nn.Module.")
    return require_logits(network, spec)


def _takes(factory: Callable[..., Any], argument: str) -> bool:
    try:
        return argument in inspect.signature(factory).parameters
    except (TypeError, ValueError):  # some callables written in C have no signature
        return False


FAMILY = ModelFamily(
    form="python:package.module:factory",
    example="python:torchvision.models.shufflenetv2:shufflenet_v2_x0_5",
    build=_build,
    recognise=recognise_nothing,
)
