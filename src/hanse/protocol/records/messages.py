"""What passes between the two sides of a request and a recorder.

Each is a frozen struct whose `struct_hash` is the EIP-712 hash of exactly its fields, in the domain
of all of Hanse's messages.

| message | signed by | says |
| --- | --- | --- |
| Submission, side `user` | the sub-accounts' signer | these receipts I hold |
| Submission, side `provider` | the provider's receipt key | these receipts I signed |
| Promise, kind `held` | the recorder | these I took at this block; the other side's are missing |
| Promise, kind `matched` | the recorder | the root over these is on the chain by this block |

Source: `docs/records.md`, section "Messages".
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import ClassVar

import msgspec

from hanse.protocol.eip712 import address_word, hash_word, uint_word
from hanse.protocol.signatures import ZERO_HASH, Address, Hash32, Signature, keccak

EntryKey = tuple[Address, Address, Address, int]
"""User, provider, signer, sequence: what names a record; also the order of a root's leaves."""


class Side(IntEnum):
    """Who speaks; the number is what is signed."""

    USER = 1
    PROVIDER = 2

    @property
    def other(self) -> "Side":
        """The one that it trades with."""
        return Side.PROVIDER if self is Side.USER else Side.USER


class PromiseKind(IntEnum):
    """What a recorder promises; the number is what is signed."""

    HELD = 1
    MATCHED = 2


class RecordEntry(msgspec.Struct, frozen=True):
    """One receipt, as one side holds it.

    Attributes:
        user, provider, signer: the sub-account.
        sequence: of the receipt.
        receipt_digest: what the receipt key signed: the receipt's EIP-712 digest.
        fee: of the receipt, base units.
        trace_hash: of this side's encrypted trace of the request; zero if it keeps none.
    """

    TYPE: ClassVar[str] = (
        "RecordEntry(address user,address provider,address signer,uint256 sequence,"
        "bytes32 receiptDigest,uint256 fee,bytes32 traceHash)"
    )

    user: Address
    provider: Address
    signer: Address
    sequence: int
    receipt_digest: Hash32
    fee: int
    trace_hash: Hash32 = ZERO_HASH

    @property
    def key(self) -> EntryKey:
        """What names the record."""
        return self.user, self.provider, self.signer, self.sequence

    def struct_hash(self) -> bytes:
        """EIP-712 hash of the fields."""
        return keccak(
            _ENTRY_TYPEHASH
            + address_word(self.user)
            + address_word(self.provider)
            + address_word(self.signer)
            + uint_word(self.sequence)
            + hash_word(self.receipt_digest)
            + uint_word(self.fee)
            + hash_word(self.trace_hash)
        )


class Submission(msgspec.Struct, frozen=True):
    """What one side hands to a recorder. Without entries it asks for that side's unmatched ones.

    Attributes:
        recorder: whom it is for; another recorder refuses it.
        side: which side speaks.
        entries: at most `RECORD_ENTRIES_PER_SUBMISSION_MAX`, all of one provider on the provider's
            side, all of one signer on the user's.
        deadline: unix seconds, at most `SUBMISSION_VALID_S_MAX` ahead.
    """

    TYPE: ClassVar[str] = (
        "Submission(address recorder,uint256 side,RecordEntry[] entries,uint256 deadline)"
        + RecordEntry.TYPE
    )

    recorder: Address
    side: Side
    entries: tuple[RecordEntry, ...]
    deadline: int

    def struct_hash(self) -> bytes:
        """EIP-712 hash of the fields."""
        return keccak(
            _SUBMISSION_TYPEHASH
            + address_word(self.recorder)
            + uint_word(self.side)
            + hash_entries(self.entries)
            + uint_word(self.deadline)
        )


class Promise(msgspec.Struct, frozen=True):
    """A recorder's word about entries of one submission.

    Attributes:
        recorder: who promises, and signs.
        kind: held or matched.
        entries_hash: `hash_entries` of those it is about, in the submission's order.
        block: held: the block at which they were taken. Matched: the last block in which their
            root may be committed.
    """

    TYPE: ClassVar[str] = (
        "Promise(address recorder,uint256 kind,bytes32 entriesHash,uint256 blockNumber)"
    )

    recorder: Address
    kind: PromiseKind
    entries_hash: Hash32
    block: int

    def struct_hash(self) -> bytes:
        """EIP-712 hash of the fields."""
        return keccak(
            _PROMISE_TYPEHASH
            + address_word(self.recorder)
            + uint_word(self.kind)
            + hash_word(self.entries_hash)
            + uint_word(self.block)
        )


class SignedSubmission(msgspec.Struct, frozen=True):
    """A submission, who speaks, and the signature.

    `party` is the provider on the provider's side and the signer on the user's.
    """

    submission: Submission
    party: Address
    signature: Signature


class SignedPromise(msgspec.Struct, frozen=True):
    """A promise and its recorder's signature."""

    promise: Promise
    signature: Signature


def hash_entries(entries: Sequence[RecordEntry]) -> bytes:
    """EIP-712's hash of an array of entries: of their hashes, one after another."""
    return keccak(b"".join(entry.struct_hash() for entry in entries))


_ENTRY_TYPEHASH = keccak(RecordEntry.TYPE.encode())
_SUBMISSION_TYPEHASH = keccak(Submission.TYPE.encode())
_PROMISE_TYPEHASH = keccak(Promise.TYPE.encode())
