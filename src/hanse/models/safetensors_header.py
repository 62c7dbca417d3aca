"""Reads the header of a safetensors file from a stranger, within limits.

Eight bytes of length, JSON of that length, then the tensors' bytes without a gap. Nothing in it is
code, which is what the format is for. Source: the safetensors README ("Format").
"""

from pathlib import Path
from typing import Any

import msgspec

from hanse.models.tensors import Header, Tensor, Value, find_overlap
from hanse.protocol.errors import VerificationError
from hanse.protocol.nesting import is_nested_too_deep

HEADER_BYTES_MAX = 100_000_000
"""Where the format's own reader stops."""
TENSORS_MAX = 65_536
"""As in a GGUF file."""
NAME_BYTES_MAX = 512
DIMENSIONS_MAX = 8
DIMENSION_MAX = 2**40
TEXT_BYTES_MAX = 65_536
"""Of one entry of `__metadata__`; usual is `format: pt`."""

DTYPE_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8, "I32": 4,
    "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
"""Storage type -> bytes a number."""


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    """One tensor, as the header has it."""

    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def read_safetensors_header(path: Path) -> Header:
    """The header of one safetensors file, checked against the file's size.

    Raises:
        VerificationError: `model_invalid`, with what is wrong where.
    """
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size_bytes < 8 or not 2 <= length <= min(size_bytes - 8, HEADER_BYTES_MAX):
            raise _refuse(path, f"it claims a header of {length} bytes in a file of {size_bytes}")
        raw = file.read(length)
    document = _decode(path, raw)
    metadata = document.pop("__metadata__", {})
    if len(document) > TENSORS_MAX:
        raise _refuse(path, f"it claims {len(document)} tensors, at most {TENSORS_MAX} are read")
    start, tensors = 8 + length, {}
    for name, entry in document.items():
        tensors[name] = _read_tensor(path, name, entry, start, size_bytes)
    shared = find_overlap(tensors.values())
    if shared:
        raise _refuse(path, f"tensors {shared[0].name!r} and {shared[1].name!r} share bytes")
    held = sum(tensor.size_bytes for tensor in tensors.values())
    if start + held != size_bytes:
        raise _refuse(
            path,
            f"header and tensors come to {start + held} bytes, the file has {size_bytes}: "
            "it was cut off, or holds what its header does not name",
        )
    return Header("safetensors", (path,), _read_metadata(path, metadata), tensors)


def _decode(path: Path, raw: bytes) -> dict[str, Any]:
    if is_nested_too_deep(raw):
        raise _refuse(path, "its header is nested too deep")
    try:
        return msgspec.json.decode(raw.rstrip(b" "), type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _refuse(path, f"its header is no JSON object ({error})") from None


def _read_tensor(path: Path, name: str, raw: object, start: int, size_bytes: int) -> Tensor:
    if len(name.encode()) > NAME_BYTES_MAX:
        raise _refuse(path, f"a tensor's name has more than {NAME_BYTES_MAX} bytes")
    try:
        entry = msgspec.convert(raw, _Entry)
    except msgspec.ValidationError as error:
        raise _refuse(path, f"tensor {name!r}: {error}") from None
    width = DTYPE_BYTES.get(entry.dtype)
    if width is None:
        raise _refuse(path, f"tensor {name!r} has the unknown type {entry.dtype[:20]!r}")
    shape = tuple(entry.shape)
    if len(shape) > DIMENSIONS_MAX or not all(0 <= side <= DIMENSION_MAX for side in shape):
        raise _refuse(path, f"tensor {name!r} has the shape {shape[:DIMENSIONS_MAX]}")
    begin, end = entry.data_offsets
    tensor = Tensor(name, shape, entry.dtype, path, start + begin, end - begin)
    if end - begin != tensor.weights * width:
        raise _refuse(
            path,
            f"tensor {name!r} has {end - begin} bytes, shape and type ask for "
            f"{tensor.weights * width}",
        )
    if begin < 0 or start + end > size_bytes:
        raise _refuse(
            path,
            f"tensor {name!r} ends at byte {start + end}, the file at {size_bytes}: it was cut off "
            "or the header lies",
        )
    return tensor


def _read_metadata(path: Path, metadata: object) -> dict[str, Value]:
    if not isinstance(metadata, dict):
        raise _refuse(path, "its __metadata__ is no object")
    for key, value in metadata.items():
        if not isinstance(value, str) or len(value) > TEXT_BYTES_MAX:
            raise _refuse(path, f"__metadata__ {key[:40]!r} is no text of reasonable length")
    return dict(metadata)


def _refuse(path: Path, reason: str) -> VerificationError:
    return VerificationError(
        "model_invalid", f"{path.name} is no valid safetensors file: {reason}."
    )
