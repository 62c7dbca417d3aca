"""Openings: only what was committed opens a root."""

from dataclasses import replace
from hashlib import sha256

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.protocol.commitments.tree import (
    CHOSEN_POSITIONS_MAX,
    POSITIONS_MAX,
    Entry,
    decode_opening,
    encode_opening,
    get_commitment_root,
    open_positions,
    verify_positions,
)
from hanse.protocol.errors import VerificationError
from hanse.protocol.signatures import ZERO_HASH

entry_lists = st.lists(
    st.builds(Entry, st.integers(0, 2**32 - 1), st.binary(min_size=16, max_size=16)),
    min_size=1,
    max_size=20,
)


def make_entries(count: int) -> list[Entry]:
    return [Entry(at, sha256(bytes([at % 256])).digest()[:16]) for at in range(count)]


def test_an_answer_without_tokens_has_no_commitment() -> None:
    assert get_commitment_root([]) == ZERO_HASH


@given(entry_lists)
def test_an_opening_opens_its_own_root_and_no_other(entries: list[Entry]) -> None:
    root, data = get_commitment_root(entries), encode_opening(entries)
    assert list(decode_opening(data, root)) == entries
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(VerificationError):
            decode_opening(changed, root)


@given(entry_lists, st.data())
def test_chosen_positions_open_by_proofs(entries: list[Entry], data: st.DataObject) -> None:
    places = st.sets(st.integers(0, len(entries) - 1), min_size=1)
    chosen = sorted(data.draw(places))
    root = get_commitment_root(entries)
    opened = open_positions(entries, chosen)
    verify_positions(opened, root)
    assert [one.position for one in opened] == chosen
    forged = msgspec.structs.replace(
        opened[0], entry=Entry(opened[0].entry.token ^ 1, opened[0].entry.fingerprint)
    )
    with pytest.raises(VerificationError, match="leads to"):
        verify_positions([forged, *opened[1:]], root)


def test_a_position_cannot_be_passed_off_as_another() -> None:
    entries = make_entries(4)
    entries[2] = entries[1]
    (opened,) = open_positions(entries, [1])
    moved = msgspec.structs.replace(opened, proof=replace(opened.proof, index=2))
    with pytest.raises(VerificationError):
        verify_positions([moved], get_commitment_root(entries))


def test_positions_come_once_in_order_and_some_at_least() -> None:
    entries = make_entries(5)
    root = get_commitment_root(entries)
    first, second = open_positions(entries, [1, 3])
    for wrong in ([second, first], [first, first], [], [first] * (CHOSEN_POSITIONS_MAX + 1)):
        with pytest.raises(VerificationError):
            verify_positions(wrong, root)


def test_limits_and_misfits_are_named() -> None:
    with pytest.raises(VerificationError, match="not an opening"):
        decode_opening(b"hello", ZERO_HASH)
    with pytest.raises(VerificationError, match="has 60 bytes, this one 61"):
        decode_opening(encode_opening(make_entries(2)) + b"x", ZERO_HASH)
    with pytest.raises(ValueError, match="at most"):
        get_commitment_root([Entry(0, bytes(16))] * (POSITIONS_MAX + 1))
    with pytest.raises(ValueError, match="token"):
        get_commitment_root([Entry(2**32, bytes(16))])
    with pytest.raises(ValueError, match="15 bytes"):
        encode_opening([Entry(1, bytes(15))])
