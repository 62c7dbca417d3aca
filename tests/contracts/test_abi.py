"""Our ABI codec against eth_abi's, byte by byte, and against data that is no encoding."""

from typing import Any

import eth_abi.abi
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.contracts.abi import AbiError, decode, encode
from hanse.contracts.artifacts import load_artifact

WORDS: dict[str, st.SearchStrategy[Any]] = {
    "uint256": st.integers(0, 2**256 - 1),
    "uint8": st.integers(0, 255),
    "address": st.binary(min_size=20, max_size=20).map(lambda raw: f"0x{raw.hex()}"),
    "bool": st.booleans(),
    "bytes32": st.binary(min_size=32, max_size=32),
    "bytes4": st.binary(min_size=4, max_size=4),
    "string": st.text(max_size=70),
    "bytes": st.binary(max_size=70),
}


def with_kind(name: str) -> st.SearchStrategy[tuple[str, Any]]:
    return WORDS[name].map(lambda value: (name, value))


def lists_of(pairs: st.SearchStrategy[tuple[str, Any]]) -> st.SearchStrategy[tuple[str, Any]]:
    """A list of equal values: one drawn value has one kind."""
    return st.tuples(pairs, st.integers(0, 4)).map(
        lambda drawn: (f"{drawn[0][0]}[]", (drawn[0][1],) * drawn[1])
    )


def structs_of(pairs: st.SearchStrategy[tuple[str, Any]]) -> st.SearchStrategy[tuple[str, Any]]:
    return st.lists(pairs, min_size=1, max_size=4).map(
        lambda members: (
            f"({','.join(kind for kind, _ in members)})",
            tuple(value for _, value in members),
        )
    )


PAIRS = st.recursive(
    st.sampled_from(sorted(WORDS)).flatmap(with_kind),
    lambda inner: lists_of(inner) | structs_of(inner),
    max_leaves=8,
)


@given(st.lists(PAIRS, max_size=5))
def test_every_byte_is_the_references(pairs: list[tuple[str, Any]]) -> None:
    kinds, values = [kind for kind, _ in pairs], tuple(value for _, value in pairs)
    data = encode(kinds, values)
    assert data == eth_abi.abi.encode(kinds, values)
    assert decode(kinds, data) == eth_abi.abi.decode(kinds, data) == values


@given(st.lists(PAIRS, min_size=1, max_size=3), st.data())
def test_damaged_data_is_read_as_the_reference_reads_it(
    pairs: list[tuple[str, Any]], drawn: st.DataObject
) -> None:
    """Refused by both, or the same values by both: never read as something else."""
    kinds, values = [kind for kind, _ in pairs], tuple(value for _, value in pairs)
    data = bytearray(encode(kinds, values))
    at = drawn.draw(st.integers(0, len(data) - 1))
    data[at] = drawn.draw(st.integers(0, 255))
    cut = bytes(data[: drawn.draw(st.integers(0, len(data)))])
    for damaged in (bytes(data), cut):
        try:
            theirs = eth_abi.abi.decode(kinds, damaged)
        except Exception:
            with pytest.raises(AbiError):
                decode(kinds, damaged)
            continue
        assert decode(kinds, damaged) == theirs


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("uint8", 256),
        ("uint256", 2**256),
        ("uint256", -1),
        ("uint256", True),
        ("uint256", 1.0),
        ("uint256", "1"),
        ("address", "0x" + "11" * 19),
        ("address", "0x" + "11" * 21),
        ("address", "0x" + "zz" * 20),
        ("address", b"\x11" * 20),
        ("bool", 1),
        ("bytes32", b"\x11" * 31),
        ("bytes32", b"\x11" * 33),
        ("bytes32", "0x" + "11" * 32),
        ("string", b"text"),
        ("bytes", "text"),
        ("uint256[]", "12"),
        ("(uint256,bool)", (1,)),
        ("(uint256,bool)", (1, True, 2)),
        ("uint256[]", [1, -1]),
    ],
)
def test_a_value_that_does_not_fit_is_refused(kind: str, value: object) -> None:
    with pytest.raises(AbiError):
        encode([kind], [value])


@pytest.mark.parametrize("values", [(), (1, 2, 3)])
def test_as_many_values_as_kinds(values: tuple[int, ...]) -> None:
    with pytest.raises(AbiError, match=f"2 values are needed, there are {len(values)}"):
        encode(["uint256", "uint256"], values)


def word(number: int) -> bytes:
    return number.to_bytes(32, "big")


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("uint256", b""),
        ("uint256", bytes(31)),
        ("uint8", word(256)),
        ("bool", word(2)),
        ("address", word(1 << 160)),
        ("bytes4", word(1)),
        ("string", word(64) + word(1)),  # its place lies behind the data
        ("string", word(2**255) + word(1)),
        ("string", word(32) + word(2**200) + word(0)),
        ("string", word(32) + word(1) + b"ab" + bytes(30)),  # padding that is not zero
        ("string", word(32) + word(1) + b"a"),  # no padding
        ("string", word(32) + word(1) + b"\xff" + bytes(31)),
        ("uint256[]", word(32) + word(2) + word(1)),
        ("uint256[]", word(32) + word(2**256 - 1)),
    ],
)
def test_what_is_no_encoding_is_refused(kind: str, data: bytes) -> None:
    with pytest.raises(AbiError):
        decode([kind], data)


def test_a_kind_that_no_contract_uses_is_not_guessed() -> None:
    for kind in ("int256", "fixed128x18", "uint256[3]", "function", "bytes33", ""):
        with pytest.raises(ValueError):  # noqa: PT011 - a mistake of ours, whatever it says
            encode([kind], [1])


def test_every_kind_of_our_contracts_is_known() -> None:
    for name in ("Escrow", "Registry", "Records", "TestAsset"):
        artifact = load_artifact(name)
        for function in artifact.functions.values():
            for kind in (*function.inputs, *function.outputs):
                with pytest.raises(AbiError):
                    decode([kind], b"")
