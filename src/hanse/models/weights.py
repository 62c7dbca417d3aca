"""Reads a tensor's weights as float32, whatever they are stored in.

One tensor at a time, straight from its place in the file: a model larger than memory can be
compared and converted. Needs numpy, and gguf for quantised types (extra `models`).
"""

from typing import TYPE_CHECKING, Any

from hanse.models.ggml_types import TENSOR_TYPES
from hanse.models.tensors import Tensor
from hanse.protocol.errors import RequestError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NUMBERS = {name: number for number, (name, _, _) in TENSOR_TYPES.items()}
_PLAIN = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "u1",
}  # fmt: skip
"""Types that numpy has, little endian as both formats are."""


def read_weights(tensor: Tensor) -> "NDArray[np.float32]":
    """The tensor as float32, outermost dimension first.

    Raises:
        RequestError: `model_unsupported`, nothing here unpacks this type.
    """
    import numpy as np

    raw = np.fromfile(
        tensor.path, dtype=np.uint8, count=tensor.size_bytes, offset=tensor.start_bytes
    )
    if tensor.dtype in _PLAIN:
        values: Any = raw.view(_PLAIN[tensor.dtype]).astype(np.float32)
    elif tensor.dtype == "BF16":
        values = (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        values = _unpack(tensor, raw)
    return np.asarray(values, dtype=np.float32).reshape(tensor.shape)


def _unpack(tensor: Tensor, raw: "NDArray[np.uint8]") -> Any:
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    try:
        return dequantize(raw, GGMLQuantizationType(_NUMBERS[tensor.dtype]))
    except (KeyError, ValueError, NotImplementedError) as error:
        raise RequestError(
            "model_unsupported",
            f"The tensor {tensor.name!r} is stored as {tensor.dtype}, which nothing here unpacks.",
        ) from error
