"""The ABI's encoding of values: arguments of calls in, results, events and revert reasons out.

    data = encode(("address", "(uint256,bytes32)[]"), (owner, [(1, digest)]))
    owner, rows = decode(("address", "(uint256,bytes32)[]"), data)

The kinds that Hanse's contracts use: `uintN`, `address`, `bool`, `bytesN`, `bytes`, `string`,
structs, and lists of any of them. Addresses go in and come out as `0x` and 40 hex digits, lower
case where they come out; structs and lists as tuples.

Strict both ways: a value that does not fit is refused, never cut, and so is what comes back with
bits where padding has to be, or with less data than it promises. It is written here, since
importing eth_abi takes 0.3 s of every process; a property test holds every byte equal to it.

Source: the Solidity ABI specification, "Formal Specification of the Encoding" and "Strict Encoding
    Mode".
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

WORD_BYTES = 32


class AbiError(ValueError):
    """A value that does not fit its kind, or data that is none of it."""


@dataclass(frozen=True)
class _Kind:
    """How one kind of value is written.

    Attributes:
        name: as the ABI has it.
        head_bytes: what it takes in its struct's head; a dynamic one an offset, 32 bytes.
        is_dynamic: whether it stands in the tail.
        encode: the value's bytes, without an offset.
        decode: the value that begins at this byte of the data.
    """

    name: str
    head_bytes: int
    is_dynamic: bool
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes, int], Any]


def encode(kinds: Sequence[str], values: Sequence[Any]) -> bytes:
    """The values, one after another, as arguments of a call.

    Raises:
        AbiError: a value does not fit its kind, or there are more or fewer than kinds.
    """
    return _encode_members([_parse(kind) for kind in kinds], values)


def decode(kinds: Sequence[str], data: bytes) -> tuple[Any, ...]:
    """What `encode` was given; bytes behind the last value are not looked at.

    Raises:
        AbiError: this is no encoding of such values.
    """
    return _decode_members([_parse(kind) for kind in kinds], bytes(data), 0)


# How structs and lists stand: heads first, and what is dynamic behind them.


def _encode_members(kinds: Sequence[_Kind], values: Sequence[Any]) -> bytes:
    if isinstance(values, str | bytes) or len(values) != len(kinds):
        raise AbiError(f"{len(kinds)} values are needed, there are {len(values)}")
    heads, tails = [], []
    offset = sum(kind.head_bytes for kind in kinds)
    for kind, value in zip(kinds, values, strict=True):
        encoded = kind.encode(value)
        if kind.is_dynamic:
            heads.append(offset.to_bytes(WORD_BYTES, "big"))
            tails.append(encoded)
            offset += len(encoded)
        else:
            heads.append(encoded)
    return b"".join(heads + tails)


def _decode_members(kinds: Sequence[_Kind], data: bytes, start: int) -> tuple[Any, ...]:
    """Members of a struct or list that begins at `start`, from which offsets count."""
    values, at = [], start
    for kind in kinds:
        place = start + _read_uint(data, at) if kind.is_dynamic else at
        values.append(kind.decode(data, place))
        at += kind.head_bytes
    return tuple(values)


@cache
def _parse(name: str) -> _Kind:
    """How a kind is written; ValueError for one that no contract of Hanse uses."""
    if name.endswith("[]"):
        return _make_list(name, _parse(name.removesuffix("[]")))
    if name.startswith("(") and name.endswith(")"):
        return _make_struct(name, [_parse(member) for member in _split(name[1:-1])])
    if name in ("string", "bytes"):
        return _make_text(name)
    made = _WORDS.get(name)
    if made is None and name.startswith("uint"):
        made = _make_uint(name, int(name.removeprefix("uint")))
    if made is None and name.startswith("bytes"):
        made = _make_bytes(name, int(name.removeprefix("bytes")))
    if made is None:
        raise ValueError(f"the kind {name} is not known here")
    return made


def _split(members: str) -> list[str]:
    """Split at the commas that are in no inner struct."""
    found, depth, begin = [], 0, 0
    for index, character in enumerate(members):
        depth += (character == "(") - (character == ")")
        if character == "," and not depth:
            found.append(members[begin:index])
            begin = index + 1
    return [*found, members[begin:]]


def _make_struct(name: str, members: Sequence[_Kind]) -> _Kind:
    is_dynamic = any(member.is_dynamic for member in members)
    return _Kind(
        name,
        WORD_BYTES if is_dynamic else sum(member.head_bytes for member in members),
        is_dynamic,
        lambda values: _encode_members(members, values),
        lambda data, at: _decode_members(members, data, at),
    )


def _make_list(name: str, member: _Kind) -> _Kind:
    def encode_list(values: Any) -> bytes:
        if isinstance(values, str | bytes):
            raise AbiError(f"{name} is a list, not text")
        length = len(values).to_bytes(WORD_BYTES, "big")
        return length + _encode_members([member] * len(values), values)

    def decode_list(data: bytes, at: int) -> tuple[Any, ...]:
        length, begin = _read_uint(data, at), at + WORD_BYTES
        if length * member.head_bytes > len(data) - begin:  # before any memory is taken for them
            raise AbiError(f"{length} of {member.name} do not fit {len(data) - begin} bytes")
        return _decode_members([member] * length, data, begin)

    return _Kind(name, WORD_BYTES, True, encode_list, decode_list)


def _make_text(name: str) -> _Kind:
    kind = str if name == "string" else bytes

    def encode_text(value: Any) -> bytes:
        if not isinstance(value, kind):
            raise AbiError(f"{value!r:.80} is no {name}")
        raw = value.encode() if isinstance(value, str) else bytes(value)
        return len(raw).to_bytes(WORD_BYTES, "big") + raw + bytes(-len(raw) % WORD_BYTES)

    def decode_text(data: bytes, at: int) -> str | bytes:
        length, begin = _read_uint(data, at), at + WORD_BYTES
        end = begin + length + -length % WORD_BYTES
        if end > len(data):
            raise AbiError(f"a {name} of {length} bytes does not fit {len(data) - begin}")
        raw = data[begin : begin + length]
        if any(data[begin + length : end]):
            raise AbiError(f"behind a {name} is padding that is not zero")
        try:
            return raw.decode() if kind is str else raw
        except UnicodeDecodeError:
            raise AbiError("a string is not UTF-8") from None

    return _Kind(name, WORD_BYTES, True, encode_text, decode_text)


# Words: one value in 32 bytes.


def _read_word(data: bytes, at: int) -> bytes:
    word = data[at : at + WORD_BYTES]
    if len(word) != WORD_BYTES:
        raise AbiError(f"{len(data)} bytes end inside a word at {at}")
    return word


def _read_uint(data: bytes, at: int) -> int:
    return int.from_bytes(_read_word(data, at), "big")


def _make_word(
    name: str, to_word: Callable[[Any], bytes], from_word: Callable[[bytes], Any]
) -> _Kind:
    return _Kind(name, WORD_BYTES, False, to_word, lambda data, at: from_word(_read_word(data, at)))


def _make_uint(name: str, bits: int) -> _Kind:
    def to_word(value: Any) -> bytes:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << bits:
            raise AbiError(f"{value!r:.100} is no {name}")
        return value.to_bytes(WORD_BYTES, "big")

    def from_word(word: bytes) -> int:
        value = int.from_bytes(word, "big")
        if value >= 1 << bits:
            raise AbiError(f"0x{word.hex()} is no {name}")
        return value

    return _make_word(name, to_word, from_word)


def _make_bytes(name: str, size: int) -> _Kind:
    padding = bytes(WORD_BYTES - size)

    def to_word(value: Any) -> bytes:
        if not isinstance(value, bytes) or len(value) != size:
            raise AbiError(f"{value!r:.100} is no {name}")
        return value + padding

    def from_word(word: bytes) -> bytes:
        if word[size:] != padding:
            raise AbiError(f"0x{word.hex()} is no {name}")
        return word[:size]

    return _make_word(name, to_word, from_word)


def _address_to_word(value: Any) -> bytes:
    try:
        raw = bytes.fromhex(value.removeprefix("0x")) if isinstance(value, str) else b""
    except ValueError:
        raw = b""
    if len(raw) != 20:
        raise AbiError(f"{value!r:.100} is no address")
    return bytes(12) + raw


def _word_to_address(word: bytes) -> str:
    if any(word[:12]):
        raise AbiError(f"0x{word.hex()} is no address")
    return f"0x{word[12:].hex()}"


def _bool_to_word(value: Any) -> bytes:
    if not isinstance(value, bool):
        raise AbiError(f"{value!r:.100} is no bool")
    return value.to_bytes(WORD_BYTES, "big")


def _word_to_bool(word: bytes) -> bool:
    number = int.from_bytes(word, "big")
    if number > 1:
        raise AbiError(f"0x{word.hex()} is no bool")
    return bool(number)


_WORDS = {
    "address": _make_word("address", _address_to_word, _word_to_address),
    "bool": _make_word("bool", _bool_to_word, _word_to_bool),
}
