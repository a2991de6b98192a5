"""Any classifier of torchvision: torchvision:NAME, or torchvision:NAME+small with a stem for small pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import nn

from compressor.core.contracts import ModelFamily
from compressor.core.types import ModelSpec
from compressor.models.families._foreign import member_of, recognise_nothing, require_logits
from compressor.models.families._layers import require_relu
from compressor.models.families._small_stem import with_small_stem

NAME = "torchvision"

# These two give auxiliary logits while they train unless told otherwise, and the first warns unless told how to begin.
_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


def _build(spec: ModelSpec) -> nn.Module:
    require_relu(spec)
    from torchvision import models

    member, small = member_of(spec.name, NAME, models.list_models(module=models))
    settings = _SETTINGS.get(member, {})
    network = cast(nn.Module, models.get_model(member, weights=None, num_classes=spec.classes, **settings))
    return require_logits(with_small_stem(network, spec.name) if small else network, spec)


FAMILY = ModelFamily(
    form="torchvision:NAME[+small]",
    example="torchvision:shufflenet_v2_x0_5+small",
    build=_build,
    recognise=recognise_nothing,
)
