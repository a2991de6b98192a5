"""Any classifier of timm (extra timm): timm:NAME, or timm:NAME+small with a stem for small pictures."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from compressor.core.contracts import ModelFamily
from compressor.core.errors import MissingPackageError
from compressor.core.types import ModelSpec
from compressor.models.families._foreign import member_of, recognise_nothing, require_logits
from compressor.models.families._layers import require_relu
from compressor.models.families._small_stem import with_small_stem

NAME = "timm"


def _build(spec: ModelSpec) -> nn.Module:
    require_relu(spec)
    library = _library(spec.name)
    # Only the library's own list: its factory would also take addresses of weights to fetch.
    member, small = member_of(spec.name, NAME, library.list_models())
    network = cast(nn.Module, library.create_model(member, pretrained=False, num_classes=spec.classes))
    return require_logits(with_small_stem(network, spec.name) if small else network, spec)


def _library(name: str) -> Any:
    try:
        import timm
    except ImportError:
        raise MissingPackageError(
            f"the model {name} needs timm, which is not installed.",
            "pip install 'robust-compress[timm]', or choose a model of torchvision.",
        ) from None
    return timm


FAMILY = ModelFamily(
    form="timm:NAME[+small]",
    example="timm:mobilenetv3_small_050+small",
    build=_build,
    recognise=recognise_nothing,
)
