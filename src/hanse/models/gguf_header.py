"""Reads the header of a GGUF file from a stranger: every count and length is bounded, then used.

The gguf package reads headers too, but trusts them: a count of 2^60 is an endless loop there, and
an offset outside the file becomes an error when the weights are read. Here such a file is refused
before anything is believed. Lists (the vocabulary has hundreds of thousands of items) are hashed,
not kept: `list_values` reads one when it is wanted.

Source: ggml's docs/gguf.md (versions 2 and 3, little endian).
"""

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from hanse.models.ggml_types import TENSOR_TYPES
from hanse.models.tensors import Header, ListValue, Tensor, Value, find_overlap
from hanse.protocol.errors import VerificationError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
HEADER_BYTES_MAX = 64 * 2**20
"""Of metadata and tensor list. Gemma 3's, with a vocabulary of 262,144, has 14 MB."""
VALUES_MAX = 4_096
"""Metadata keys; models have 20 to 60."""
TENSORS_MAX = 65_536
"""Tensors; DeepSeek-V3 in GGUF has about 1,100, unmerged experts some 50,000."""
NAME_BYTES_MAX = 256
"""Of a key or a tensor's name; ggml itself stops at 64 for tensors."""
TEXT_BYTES_MAX = 8 * 2**20
"""Of one text; chat templates have up to 40 kB."""
ITEMS_MAX = 4_194_304
"""Of one list: eight vocabularies of the largest kind."""
DIMENSIONS_MAX = 4
DIMENSION_MAX = 2**40
ALIGNMENT_MAX = 65_536
FIRST_ITEMS = 4

_SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_TEXT, _LIST = 8, 9


def read_gguf_header(path: Path) -> Header:
    """The header of one GGUF file, checked against the file's size.

    Raises:
        VerificationError: `model_invalid`, with what is wrong where.
    """
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        cursor = _Cursor(file, min(size_bytes, HEADER_BYTES_MAX), path.name)
        tensors, values = _read_counts(cursor)
        found: dict[str, Value] = {}
        for _ in range(values):
            key = cursor.read_text(NAME_BYTES_MAX)
            if key in found:
                raise cursor.refuse(f"the key {key!r} stands twice")
            found[key] = cursor.read_value()
        alignment = found.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= ALIGNMENT_MAX or alignment % 8:
            raise cursor.refuse(f"general.alignment is {alignment}, not a multiple of 8")
        listed = [_read_tensor(cursor) for _ in range(tensors)]
    start = -(-cursor.position // alignment) * alignment
    placed = _place(cursor, path, listed, start, alignment, size_bytes)
    return Header("gguf", (path,), found, placed)


def list_values(path: Path, key: str) -> list[str | int | float | bool]:
    """All items of the list under `key`; empty if the file has no such list.

    Raises:
        VerificationError: `model_invalid`.
    """
    with path.open("rb") as file:
        cursor = _Cursor(file, min(path.stat().st_size, HEADER_BYTES_MAX), path.name)
        _, values = _read_counts(cursor)
        for _ in range(values):
            if cursor.read_text(NAME_BYTES_MAX) != key:
                cursor.read_value()
                continue
            return list(cursor.read_items()) if cursor.read_scalar("I") == _LIST else []
    return []


def _read_counts(cursor: "_Cursor") -> tuple[int, int]:
    """Tensors and metadata keys, as the file's first 24 bytes say."""
    if cursor.read(4) != MAGIC:
        raise cursor.refuse("it does not begin with GGUF")
    version = int(cursor.read_scalar("I"))
    if version not in VERSIONS:
        raise cursor.refuse(f"its version is {version}, known are 2 and 3")
    tensors, values = int(cursor.read_scalar("Q")), int(cursor.read_scalar("Q"))
    if tensors > TENSORS_MAX or values > VALUES_MAX:
        raise cursor.refuse(
            f"it claims {tensors} tensors and {values} keys, at most "
            f"{TENSORS_MAX} and {VALUES_MAX} are read"
        )
    return tensors, values


def _read_tensor(cursor: "_Cursor") -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape outermost first, type's number, offset."""
    name = cursor.read_text(NAME_BYTES_MAX)
    dimensions = int(cursor.read_scalar("I"))
    if not 1 <= dimensions <= DIMENSIONS_MAX:
        raise cursor.refuse(f"tensor {name!r} has {dimensions} dimensions, 1 to 4 can be")
    shape = tuple(int(cursor.read_scalar("Q")) for _ in range(dimensions))
    if not all(0 < side <= DIMENSION_MAX for side in shape):
        raise cursor.refuse(f"tensor {name!r} has the shape {shape}")
    kind, offset = int(cursor.read_scalar("I")), int(cursor.read_scalar("Q"))
    return name, shape[::-1], kind, offset


def _place(
    cursor: "_Cursor",
    path: Path,
    listed: list[tuple[str, tuple[int, ...], int, int]],
    start: int,
    alignment: int,
    size_bytes: int,
) -> dict[str, Tensor]:
    """The tensors with their bytes, each inside the file and apart from the others."""
    placed: dict[str, Tensor] = {}
    for name, shape, kind, offset in listed:
        dtype = TENSOR_TYPES.get(kind)
        if dtype is None:
            raise cursor.refuse(f"tensor {name!r} has the unknown type {kind}")
        if name in placed:
            raise cursor.refuse(f"tensor {name!r} stands twice")
        if shape[-1] % dtype.block_weights:
            raise cursor.refuse(
                f"tensor {name!r} has rows of {shape[-1]}, {dtype.name} needs a multiple of "
                f"{dtype.block_weights}"
            )
        if offset % alignment:
            raise cursor.refuse(f"tensor {name!r} begins at {offset}, no multiple of {alignment}")
        tensor = Tensor(name, shape, dtype.name, path, start + offset, 0)
        length = tensor.weights // dtype.block_weights * dtype.block_bytes
        if start + offset + length > size_bytes:
            raise cursor.refuse(
                f"tensor {name!r} ends at byte {start + offset + length}, the file at "
                f"{size_bytes}: it was cut off or the header lies"
            )
        placed[name] = Tensor(name, shape, dtype.name, path, start + offset, length)
    shared = find_overlap(placed.values())
    if shared:
        raise cursor.refuse(f"tensors {shared[0].name!r} and {shared[1].name!r} share bytes")
    return placed


class _Cursor:
    """Reads forward through the header and never past its bound."""

    def __init__(self, file: BinaryIO, end: int, name: str) -> None:
        self._file = file
        self._end = end
        self._name = name
        self.position = 0

    def refuse(self, reason: str) -> VerificationError:
        return VerificationError("model_invalid", f"{self._name} is no valid GGUF file: {reason}.")

    def read(self, length: int) -> bytes:
        if self.position + length > self._end:
            raise self.refuse(
                f"its header goes on at byte {self.position + length}, "
                f"where {self._end} can be read: it was cut off or the header lies"
            )
        data = self._file.read(length)
        if len(data) != length:
            raise self.refuse(f"it ends at byte {self.position + len(data)}, amid its header")
        self.position += length
        return data

    def read_scalar(self, form: str) -> int | float | bool:
        (value,) = struct.unpack("<" + form, self.read(struct.calcsize("<" + form)))
        return value  # type: ignore[no-any-return] # by the form: a number or a bool

    def read_text(self, length_max: int) -> str:
        data = self._read_text_bytes(length_max)
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise self.refuse(f"the text before byte {self.position} is not UTF-8") from None

    def read_value(self) -> Value:
        kind = int(self.read_scalar("I"))
        if kind == _TEXT:
            return self.read_text(TEXT_BYTES_MAX)
        if kind == _LIST:
            return self._read_list()
        if kind not in _SCALARS:
            raise self.refuse(f"a value before byte {self.position} has the unknown type {kind}")
        return self.read_scalar(_SCALARS[kind])

    def read_items(self) -> Iterator[str | int | float | bool]:
        """The items of a list, whose type tag has been read."""
        kind, count = self._read_list_head()
        for _ in range(count):
            if kind == _TEXT:
                # the vocabularies of some models hold halves of characters
                yield self._read_text_bytes(TEXT_BYTES_MAX).decode(errors="surrogateescape")
            else:
                yield self.read_scalar(_SCALARS[kind])

    def _read_list(self) -> ListValue:
        """Count, hash and first items, without making an object of every item."""
        kind, count = self._read_list_head()
        digest, first = hashlib.sha256(bytes((kind,))), []
        if kind != _TEXT:
            form = _SCALARS[kind]
            data = self.read(count * struct.calcsize("<" + form))
            digest.update(data)
            width = struct.calcsize("<" + form)
            shown = min(count, FIRST_ITEMS)
            first = list(struct.unpack(f"<{shown}{form}", data[: shown * width]))
            return ListValue(count, digest.hexdigest(), tuple(first))
        for index in range(count):
            item = self._read_text_bytes(TEXT_BYTES_MAX)
            digest.update(len(item).to_bytes(8, "little") + item)
            if index < FIRST_ITEMS:
                first.append(item.decode(errors="replace"))
        return ListValue(count, digest.hexdigest(), tuple(first))

    def _read_list_head(self) -> tuple[int, int]:
        kind, count = int(self.read_scalar("I")), int(self.read_scalar("Q"))
        if kind != _TEXT and kind not in _SCALARS:
            raise self.refuse(f"a list before byte {self.position} has items of type {kind}")
        if count > ITEMS_MAX:
            raise self.refuse(f"a list claims {count} items, at most {ITEMS_MAX} are read")
        return kind, count

    def _read_text_bytes(self, length_max: int) -> bytes:
        length = int(self.read_scalar("Q"))
        if length > length_max:
            raise self.refuse(
                f"a text at byte {self.position} claims {length} bytes, at most {length_max} "
                "are read"
            )
        return self.read(length)
