"""GGUF files from strangers: what is read is right, and what lies is refused before it costs."""

import contextlib
import re
import struct
from pathlib import Path

import numpy as np
import pytest

from hanse.models.ggml_types import FILE_TYPES, TENSOR_TYPES
from hanse.models.gguf_header import ITEMS_MAX, TENSORS_MAX, list_values, read_gguf_header
from hanse.protocol.errors import VerificationError


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def key(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def tensor(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def file(
    *,
    keys: tuple[bytes, ...] = (),
    tensors: tuple[bytes, ...] = (),
    data: bytes = b"",
    magic: bytes = b"GGUF",
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:
    counted = counts or (len(tensors), len(keys))
    head = magic + struct.pack("<IQQ", version, *counted) + b"".join(keys) + b"".join(tensors)
    return head + b"\0" * (-len(head) % 32) + data


ARCHITECTURE = key("general.architecture", 8, text("llama"))
LIST = key("words", 9, struct.pack("<IQ", 8, 3) + text("a") + text("bc") + text(b"\xc4"))
FLOATS = key("scores", 9, struct.pack("<IQ3f", 6, 3, 1.0, 2.0, 4.0))
F32, Q4_0 = 0, 2
GOOD = file(
    keys=(ARCHITECTURE, LIST, FLOATS, key("n", 4, struct.pack("<I", 7))),
    tensors=(tensor("a", (32, 2), F32, 0), tensor("b", (64, 1), Q4_0, 256)),
    data=b"\1" * (256 + 36),
)


def refused(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(VerificationError) as caught:
        read_gguf_header(path)
    assert caught.value.code == "model_invalid"
    return caught.value.message


def test_a_header_is_read(tmp_path):
    path = tmp_path / "good.gguf"
    path.write_bytes(GOOD)
    header = read_gguf_header(path)
    assert header.find_text("general.architecture") == "llama"
    assert header.find_int("n") == 7
    first, second = header.tensors.values()
    assert (first.shape, first.dtype, first.size_bytes) == ((2, 32), "F32", 256)
    assert (second.shape, second.dtype, second.size_bytes) == ((1, 64), "Q4_0", 36)
    assert second.start_bytes + second.size_bytes == len(GOOD)
    assert list_values(path, "words") == ["a", "bc", "\udcc4"]
    assert list_values(path, "scores") == [1.0, 2.0, 4.0]
    assert list_values(path, "absent") == []


def test_the_gguf_packages_files_are_read_alike(tmp_path):
    """Their writer, our reader: values, shapes, and bytes at the place that we name."""
    from gguf import GGUFWriter

    path = tmp_path / "theirs.gguf"
    writer = GGUFWriter(str(path), "llama")
    writer.add_context_length(512)
    writer.add_token_list(["x", "yz"])
    weights = np.arange(96, dtype=np.float32).reshape(3, 32)
    writer.add_tensor("token_embd.weight", weights)
    writer.add_tensor("half", weights.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_gguf_header(path)
    assert header.find_int("llama.context_length") == 512
    found = header.tensors["token_embd.weight"]
    raw = path.read_bytes()[found.start_bytes : found.start_bytes + found.size_bytes]
    assert found.shape == (3, 32)
    assert raw == weights.tobytes()
    assert list_values(path, "tokenizer.ggml.tokens") == ["x", "yz"]


def test_the_table_of_types_is_theirs():
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType

    theirs = {int(kind): (kind.name, *GGML_QUANT_SIZES[kind]) for kind in GGMLQuantizationType}
    assert {number: tuple(kind) for number, kind in TENSOR_TYPES.items()} == theirs
    names = {int(k): k.name.removeprefix("MOSTLY_").removeprefix("ALL_") for k in LlamaFileType}
    assert {k: v for k, v in names.items() if v != "GUESSED"} == FILE_TYPES


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "ends at byte|cut off", id="empty"),
        pytest.param(file(magic=b"GGML"), "does not begin with GGUF", id="magic"),
        pytest.param(file(version=1), "version is 1", id="version"),
        pytest.param(file(counts=(2**60, 0)), str(TENSORS_MAX), id="tensors without end"),
        pytest.param(file(counts=(0, 2**60)), "keys", id="keys without end"),
        pytest.param(file(keys=(ARCHITECTURE, ARCHITECTURE)), "stands twice", id="key twice"),
        pytest.param(file(keys=(key("k", 77, b""),)), "unknown type 77", id="type of a value"),
        pytest.param(
            file(keys=(key("k", 9, struct.pack("<IQ", 9, 1)),)),
            "items of type 9",
            id="list of lists",
        ),
        pytest.param(
            file(keys=(key("k", 9, struct.pack("<IQ", 4, 2**61)),)), str(ITEMS_MAX), id="long list"
        ),
        pytest.param(
            file(keys=(text("k") + struct.pack("<IQ", 8, 2**62),)), "claims", id="long text"
        ),
        pytest.param(file(keys=(key("k", 8, text(b"\xff")),)), "UTF-8", id="bytes"),
        pytest.param(
            file(keys=(key("general.alignment", 4, struct.pack("<I", 0)),)), "alignment", id="align"
        ),
        pytest.param(
            file(tensors=(tensor("a", (2**39,) * 3, F32, 0),), data=b"x"), "cut off", id="huge"
        ),
        pytest.param(file(tensors=(tensor("a", (0,), F32, 0),)), "shape", id="no side"),
        pytest.param(file(tensors=(tensor("a", (1,) * 5, F32, 0),)), "5 dimensions", id="dims"),
        pytest.param(
            file(tensors=(tensor("a", (8,), 99, 0),)), "unknown type 99", id="tensor type"
        ),
        pytest.param(file(tensors=(tensor("a", (33,), Q4_0, 0),)), "multiple of 32", id="blocks"),
        pytest.param(
            file(tensors=(tensor("a", (8,), F32, 8),), data=b"x" * 64), "begins at 8", id="offset"
        ),
        pytest.param(
            file(tensors=(tensor("a", (8,), F32, 2**62),)), "cut off", id="outside of the file"
        ),
        pytest.param(
            file(tensors=(tensor("a", (16,), F32, 0), tensor("b", (8,), F32, 32)), data=b"x" * 64),
            "share bytes",
            id="one upon another",
        ),
        pytest.param(
            file(tensors=(tensor("a", (8,), F32, 0), tensor("a", (8,), F32, 32)), data=b"x" * 64),
            "stands twice",
            id="name twice",
        ),
    ],
)
def test_a_file_that_lies_is_refused(tmp_path, data, reason):
    assert re.search(reason, refused(tmp_path / "bad.gguf", data))


def test_a_file_that_was_cut_off_anywhere_is_refused(tmp_path):
    for length in range(0, len(GOOD), 7):
        refused(tmp_path / "cut.gguf", GOOD[:length])


def test_no_flipped_byte_of_the_header_does_more_than_refuse(tmp_path):
    """Whatever a stranger writes, the reader ends with a header or with our error."""
    path = tmp_path / "flipped.gguf"
    for place in range(len(GOOD) - 292):
        for flip in (0x01, 0x80, 0xFF):
            data = bytearray(GOOD)
            data[place] ^= flip
            path.write_bytes(data)
            with contextlib.suppress(VerificationError):
                read_gguf_header(path)
