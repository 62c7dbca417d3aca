"""The commitment of an answer: one root over tokens and fingerprints, and how it is opened.

    leaf = "hanse commitment 1" || position (4 bytes) || token (4 bytes) || fingerprint (16 bytes)
    root = the Merkle root of the leaves in order (`protocol/merkle.py`, which hashes each leaf)

The root goes into the receipt, which is signed before anybody knows whether it will be audited. The
broker keeps token and fingerprint of each position for the audit window (in a shorter form of its
own, `settlement/openings/kept_form.py`), and hands them out as the receipt's opening:

    opening = "hanse opening 1", line feed || number of positions (4 bytes) || each (20 bytes)

A whole opening needs no proof, its root is computed again. Chosen positions are opened by inclusion
proofs instead, so that a file of evidence holds no more of the answer than it has to.
"""

from collections.abc import Sequence

import msgspec

from hanse.protocol.commitments.fingerprints import FINGERPRINT_BYTES
from hanse.protocol.errors import VerificationError
from hanse.protocol.merkle import (
    InclusionProof,
    find_proof,
    get_levels,
    get_root,
    verify_inclusion,
)
from hanse.protocol.signatures import Hash32, to_bytes, to_hex

LEAF_TAG = b"hanse commitment 1"
OPENING_TAG = b"hanse opening 1\n"

OPENINGS_PATH = "/hanse/v1/openings/"
"""Behind it a request's id: where a broker hands the whole opening to the one who bought it."""

OPENING_RETAINED_S = 3 * 86_400
"""How long a broker keeps an opening: the time to challenge a receipt, to vote, to appeal and to
open the answer, as a deployment of the default terms has them (`hanse.contracts.deployment`)."""

POSITIONS_MAX = 131_072
"""Tokens of one answer that are committed: the longest contexts in use. An opening of so many has
2.6 MB."""

TOKEN_ID_MAX = 2**32 - 1
"""What four bytes hold; the largest vocabularies in use have 2**18 tokens."""

UNKNOWN_TOKEN = TOKEN_ID_MAX
"""In place of a token that was generated and of which the engine's server told nothing, always
with an ABSENT fingerprint. What comes after it cannot be prefilled, so an audit ends before it.
"""

ENTRY_BYTES = 4 + FINGERPRINT_BYTES
OPENING_BYTES_MAX = len(OPENING_TAG) + 4 + POSITIONS_MAX * ENTRY_BYTES

CHOSEN_POSITIONS_MAX = 1_024
"""Positions that one file opens by proofs: 700 bytes each, and an audit looks at fewer."""


class Entry(msgspec.Struct, frozen=True):
    """One generated token: its id, and the fingerprint of the state that chose it."""

    token: int
    fingerprint: bytes


class OpenedPosition(msgspec.Struct, frozen=True):
    """One entry and why it is in a commitment."""

    entry: Entry
    proof: InclusionProof

    @property
    def position(self) -> int:
        """Its place in the answer, from 0."""
        return self.proof.index


def get_leaf(position: int, entry: Entry) -> bytes:
    """What is hashed for one position.

    Raises:
        ValueError: token or fingerprint do not fit.
    """
    if not 0 <= entry.token <= TOKEN_ID_MAX:
        raise ValueError(f"token {entry.token} is outside 0 .. {TOKEN_ID_MAX}")
    if len(entry.fingerprint) != FINGERPRINT_BYTES:
        raise ValueError(
            f"a fingerprint of {len(entry.fingerprint)} bytes, expected {FINGERPRINT_BYTES}"
        )
    head = LEAF_TAG + position.to_bytes(4, "big") + entry.token.to_bytes(4, "big")
    return head + entry.fingerprint


def get_commitment_root(entries: Sequence[Entry]) -> Hash32:
    """The root for a receipt; zero if nothing was generated.

    Raises:
        ValueError: more positions than POSITIONS_MAX, or an entry that does not fit.
    """
    return to_hex(get_root(_get_leaves(entries)))


def encode_opening(entries: Sequence[Entry]) -> bytes:
    """A whole opening as it is stored and sent."""
    if len(entries) > POSITIONS_MAX:
        raise ValueError(f"{len(entries)} positions, at most {POSITIONS_MAX} are committed")
    parts = [OPENING_TAG, len(entries).to_bytes(4, "big")]
    for position, entry in enumerate(entries):
        parts.append(get_leaf(position, entry)[-ENTRY_BYTES:])
    return b"".join(parts)


def decode_opening(data: bytes, root: Hash32) -> tuple[Entry, ...]:
    """Read a whole opening and hold it to the receipt's root.

    Raises:
        VerificationError: `proof_invalid` if it is no opening, or another one's.
    """
    ahead = len(OPENING_TAG) + 4
    count = int.from_bytes(data[len(OPENING_TAG) : ahead], "big")
    if not data.startswith(OPENING_TAG) or not 0 < count <= POSITIONS_MAX:
        raise VerificationError(
            "proof_invalid", f"not an opening of 1 .. {POSITIONS_MAX} positions"
        )
    if len(data) != ahead + count * ENTRY_BYTES:
        raise VerificationError(
            "proof_invalid",
            f"an opening of {count} positions has {ahead + count * ENTRY_BYTES} bytes, "
            f"this one {len(data)}",
        )
    entries = tuple(
        Entry(int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + ENTRY_BYTES])
        for at in range(ahead, len(data), ENTRY_BYTES)
    )
    actual = get_commitment_root(entries)
    if actual != root:
        raise VerificationError(
            "proof_invalid", f"the opening's root is {actual}, the receipt's {root}"
        )
    return entries


def open_positions(entries: Sequence[Entry], positions: Sequence[int]) -> list[OpenedPosition]:
    """Chosen positions with their inclusion proofs; IndexError outside the answer."""
    levels = get_levels(_get_leaves(entries))
    return [OpenedPosition(entries[at], find_proof(levels, at)) for at in positions]


def verify_positions(opened: Sequence[OpenedPosition], root: Hash32) -> None:
    """Check that opened positions are in a commitment, each once and in order.

    Raises:
        VerificationError: `proof_invalid`, naming what does not fit.
    """
    if not 0 < len(opened) <= CHOSEN_POSITIONS_MAX:
        raise VerificationError(
            "proof_invalid", f"{len(opened)} opened positions, expected 1 .. {CHOSEN_POSITIONS_MAX}"
        )
    before = -1
    for one in opened:
        if one.position <= before:
            raise VerificationError(
                "proof_invalid", f"position {one.position} comes after position {before}"
            )
        if one.proof.size > POSITIONS_MAX:
            raise VerificationError(
                "proof_invalid", f"a tree of {one.proof.size} positions, at most {POSITIONS_MAX}"
            )
        before = one.position
        try:
            leaf = get_leaf(one.position, one.entry)
        except (ValueError, OverflowError) as error:
            raise VerificationError("proof_invalid", str(error)) from None
        verify_inclusion(leaf, one.proof, to_bytes(root))


def _get_leaves(entries: Sequence[Entry]) -> list[bytes]:
    if len(entries) > POSITIONS_MAX:
        raise ValueError(f"{len(entries)} positions, at most {POSITIONS_MAX} are committed")
    return [get_leaf(position, entry) for position, entry in enumerate(entries)]
