"""The weights and constants of a file as tensors."""

from __future__ import annotations

import numpy as np
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor

from compressor.core.errors import UnreadableModelError, UnsupportedOperatorError

_DTYPES = frozenset(
    {
        TensorProto.FLOAT,
        TensorProto.DOUBLE,
        TensorProto.FLOAT16,
        TensorProto.INT64,
        TensorProto.INT32,
        TensorProto.UINT8,
        TensorProto.INT8,
        TensorProto.BOOL,
    }
)


def to_tensor(name: str, proto: TensorProto) -> Tensor:
    """The value of a constant; float16 becomes float32, and is computed with as Cast says.

    Raises:
        UnsupportedOperatorError: its type is not implemented, or it lies in another file.
        UnreadableModelError: its values do not fit its shape.
    """
    if proto.data_type not in _DTYPES or proto.data_location == TensorProto.EXTERNAL or proto.external_data:
        raise UnsupportedOperatorError(f"the importer has no constants of the type or place of {name[:60]!r}.")
    try:
        # The copy is writable and in the machine's own byte order, which torch asks for.
        value = torch.from_numpy(np.array(numpy_helper.to_array(proto)))
        return value.float() if proto.data_type == TensorProto.FLOAT16 else value
    except (ValueError, TypeError, OverflowError) as error:
        raise UnreadableModelError(f"the values of the constant {name[:60]!r} do not fit its shape.") from error
