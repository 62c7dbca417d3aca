"""Leaf, order, root, hash chain of heads, and the proof that a receipt is recorded.

    leaf      = keccak(receipt digest || user's trace hash || provider's trace hash)
    root      = Merkle root (`hanse.protocol.merkle`) over the leaves in the order of
                (user, provider, signer, sequence); addresses by their bytes
    head      = keccak(previous head || root || count || fee total), a word each; the first previous
                head is zero, commits are numbered 1, 2, 3 ...

`Records.vy` computes head and number from what it is sent, so a recorder has one chain of heads and
cannot take a commit back. What a proof shows: this receipt is in the root of commit `number`. That
the chain has this commit is a look at one transaction, or at `Records.get_head`.

Source: `docs/records.md`, sections "The root" and "Checking a proof".
"""

from collections.abc import Sequence

import msgspec

from hanse.protocol.eip712 import hash_word, uint_word
from hanse.protocol.errors import VerificationError
from hanse.protocol.merkle import InclusionProof, get_root, verify_inclusion
from hanse.protocol.records.messages import EntryKey
from hanse.protocol.signatures import ZERO_HASH, Address, Hash32, keccak, to_bytes, to_hex


class Leaf(msgspec.Struct, frozen=True):
    """A matched receipt.

    `key` orders it, `fee` counts into the commit's fee total; only the three hashes are in the
    leaf, and the receipt digest binds key and fee.
    """

    key: EntryKey
    receipt_digest: Hash32
    fee: int
    user_trace_hash: Hash32 = ZERO_HASH
    provider_trace_hash: Hash32 = ZERO_HASH

    def get_value(self) -> bytes:
        """The 32 bytes that the tree is made over."""
        return get_leaf(self.receipt_digest, self.user_trace_hash, self.provider_trace_hash)


class Commit(msgspec.Struct, frozen=True):
    """One root of one recorder, as `Records.vy` holds it.

    Attributes:
        number: 1, 2, 3 ... of this recorder.
        root: over the leaves.
        count: how many leaves.
        fee_total: sum of their fees, base units.
        previous_head, head: before and after, in the recorder's hash chain.
    """

    number: int
    root: Hash32
    count: int
    fee_total: int
    previous_head: Hash32
    head: Hash32


class RecordProof(msgspec.Struct, frozen=True):
    """Why a receipt is recorded: its leaf's place in a root, and the root's in the hash chain.

    Attributes:
        recorder: whose chain of heads.
        commit: the root and its place.
        user_trace_hash, provider_trace_hash: the rest of the leaf.
        index: the leaf's place among `commit.count`.
        siblings: from the leaf up.
        transaction_hash, block_number: where the commit was mined, as the recorder says.
    """

    recorder: Address
    commit: Commit
    user_trace_hash: Hash32
    provider_trace_hash: Hash32
    index: int
    siblings: tuple[Hash32, ...]
    transaction_hash: Hash32
    block_number: int


def get_leaf(receipt_digest: Hash32, user_trace_hash: Hash32, provider_trace_hash: Hash32) -> bytes:
    """The leaf of a matched receipt."""
    return keccak(
        hash_word(receipt_digest) + hash_word(user_trace_hash) + hash_word(provider_trace_hash)
    )


def order_leaves(leaves: Sequence[Leaf]) -> list[Leaf]:
    """By user, provider, signer, sequence; lower-case hex sorts as the bytes do."""
    return sorted(leaves, key=lambda leaf: leaf.key)


def get_record_root(leaves: Sequence[Leaf]) -> bytes:
    """The root over leaves, in their order whatever order they come in."""
    return get_root([leaf.get_value() for leaf in order_leaves(leaves)])


def get_head(previous_head: Hash32, root: Hash32, count: int, fee_total: int) -> Hash32:
    """The head after a commit, as `Records.vy` computes it."""
    words = hash_word(previous_head) + hash_word(root) + uint_word(count) + uint_word(fee_total)
    return to_hex(keccak(words))


def apply_commit(before: tuple[int, Hash32], leaves: Sequence[Leaf]) -> Commit:
    """The commit over leaves after (number, head), (0, zero) for the first.

    Raises:
        ValueError: without leaves; nothing is committed then.
    """
    if not leaves:
        raise ValueError("nothing is matched, so nothing is committed")
    number, previous_head = before
    root, fee_total = to_hex(get_record_root(leaves)), sum(leaf.fee for leaf in leaves)
    head = get_head(previous_head, root, len(leaves), fee_total)
    return Commit(number + 1, root, len(leaves), fee_total, previous_head, head)


def verify_commit(commit: Commit) -> None:
    """Check that a commit's head follows from what it holds.

    The caller still owes: that the chain has this head at this number.

    Raises:
        VerificationError: `proof_invalid`, naming both heads.
    """
    expected = get_head(commit.previous_head, commit.root, commit.count, commit.fee_total)
    if commit.head != expected:
        raise VerificationError(
            "proof_invalid",
            f"commit {commit.number} says head {commit.head}, its root and the head before it make "
            f"{expected}",
        )
    if commit.number == 1 and commit.previous_head != ZERO_HASH:
        raise VerificationError(
            "proof_invalid", f"commit 1 follows {commit.previous_head}, the first follows zero"
        )


def verify_record(proof: RecordProof, receipt_digest: Hash32) -> None:
    """Check that a receipt's digest is in the proof's root, and the root in the proof's head.

    The caller still owes: that the receipt has this digest and is signed, and that the chain has
    this commit (`Committed` of `proof.recorder`, or `Records.get_head`).

    Raises:
        VerificationError: `proof_invalid`, naming what does not fit.
    """
    verify_commit(proof.commit)
    leaf = get_leaf(receipt_digest, proof.user_trace_hash, proof.provider_trace_hash)
    siblings = tuple(to_bytes(sibling) for sibling in proof.siblings)
    inclusion = InclusionProof(proof.index, proof.commit.count, siblings)
    verify_inclusion(leaf, inclusion, to_bytes(proof.commit.root))
