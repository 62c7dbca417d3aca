"""Merkle trees over 32-byte leaves: of a model's manifest, and of a recorder's receipts.

Inner nodes hash their children in order, and leaves are hashed with another prefix than nodes, so
no inner node can be passed off as a leaf. An odd node at a level's end moves up as it is. The empty
tree's root is zero.

    leaf = keccak(0x00 || value)        node = keccak(0x01 || left || right)
    root = keccak(0x02 || number of leaves as 8 bytes || top node)

The root commits to the number of leaves. Without it the last leaf of three has the same proof as
the second of two, and a proof would say nothing about a value's place.

Source: RFC 6962 section 2.1 for the prefixes and the shape; there the size is signed beside the
root.
"""

from dataclasses import dataclass

from hanse.protocol.errors import VerificationError
from hanse.protocol.signatures import keccak

EMPTY_ROOT = bytes(32)
SIZE_MAX = 2**64 - 1
"""Leaves of one tree; what eight bytes hold."""


@dataclass(frozen=True)
class InclusionProof:
    """Why a value is in a tree: its place, the tree's size, and the siblings from the leaf up."""

    index: int
    size: int
    siblings: tuple[bytes, ...]


def hash_leaf(value: bytes) -> bytes:
    """A leaf's hash."""
    return keccak(b"\x00" + value)


def hash_node(left: bytes, right: bytes) -> bytes:
    """An inner node's hash."""
    return keccak(b"\x01" + left + right)


def get_root(values: list[bytes]) -> bytes:
    """The root over values in their order; zero for none."""
    level = [hash_leaf(value) for value in values]
    if not level:
        return EMPTY_ROOT
    while len(level) > 1:
        level = _get_parents(level)
    return _hash_root(len(values), level[0])


def get_proof(values: list[bytes], index: int) -> InclusionProof:
    """The inclusion proof of the value at `index`; raises IndexError outside the tree."""
    return find_proof(get_levels(values), index)


def get_levels(values: list[bytes]) -> list[list[bytes]]:
    """All hashes of the tree, the leaves' level first: for many proofs out of one tree."""
    levels = [[hash_leaf(value) for value in values]]
    while len(levels[-1]) > 1:
        levels.append(_get_parents(levels[-1]))
    return levels


def find_proof(levels: list[list[bytes]], index: int) -> InclusionProof:
    """The inclusion proof at `index` of the tree of `get_levels`; IndexError outside of it."""
    size, position, siblings = len(levels[0]), index, []
    if not 0 <= index < size:
        raise IndexError(f"index {index} is outside a tree of {size} leaves")
    for level in levels[:-1]:
        sibling = position ^ 1
        if sibling < len(level):
            siblings.append(level[sibling])
        position //= 2
    return InclusionProof(index, size, tuple(siblings))


def verify_inclusion(value: bytes, proof: InclusionProof, root: bytes) -> None:
    """Check that `value` is at the proof's place in the tree with this root.

    Raises:
        VerificationError: `proof_invalid` if place, size, number of siblings or hashes do not lead
            to the root.
    """
    if not 0 <= proof.index < proof.size <= SIZE_MAX:
        raise VerificationError(
            "proof_invalid", f"place {proof.index} is outside a tree of {proof.size}"
        )
    node, position, width = hash_leaf(value), proof.index, proof.size
    siblings = iter(proof.siblings)
    while width > 1:
        if position ^ 1 < width:
            sibling = next(siblings, None)
            if sibling is None:
                raise VerificationError(
                    "proof_invalid", "the proof has too few siblings for its tree's size"
                )
            node = hash_node(sibling, node) if position & 1 else hash_node(node, sibling)
        position, width = position // 2, (width + 1) // 2
    if next(siblings, None) is not None:
        raise VerificationError(
            "proof_invalid", "the proof has more siblings than its tree's size allows"
        )
    actual = _hash_root(proof.size, node)
    if actual != root:
        raise VerificationError(
            "proof_invalid", f"the proof leads to {actual.hex()}, not to {root.hex()}"
        )


def _hash_root(size: int, top: bytes) -> bytes:
    return keccak(b"\x02" + size.to_bytes(8, "big") + top)


def _get_parents(level: list[bytes]) -> list[bytes]:
    parents = [hash_node(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
    if len(level) % 2:
        parents.append(level[-1])
    return parents
