"""Merkle trees: every leaf is provable, nothing else is."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.protocol.errors import VerificationError
from hanse.protocol.merkle import (
    EMPTY_ROOT,
    InclusionProof,
    get_proof,
    get_root,
    hash_leaf,
    hash_node,
    verify_inclusion,
)
from hanse.protocol.signatures import keccak

leaves = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=40)
distinct = st.lists(st.binary(min_size=32, max_size=32), min_size=2, max_size=20, unique=True)


def leaf(number: int) -> bytes:
    return number.to_bytes(32, "big")


def refuse(value: bytes, proof: InclusionProof, root: bytes) -> None:
    with pytest.raises(VerificationError) as caught:
        verify_inclusion(value, proof, root)
    assert caught.value.code == "proof_invalid"


@given(values=leaves)
@settings(max_examples=60)
def test_every_leaf_is_included(values):
    root = get_root(values)
    for index, value in enumerate(values):
        verify_inclusion(value, get_proof(values, index), root)


@given(values=distinct, data=st.data())
def test_a_changed_leaf_root_or_sibling_is_refused(values, data):
    index = data.draw(st.integers(0, len(values) - 1))
    bit = data.draw(st.integers(0, 255))
    root, proof = get_root(values), get_proof(values, index)

    def flip(word: bytes) -> bytes:
        return (int.from_bytes(word, "big") ^ (1 << bit)).to_bytes(32, "big")

    refuse(flip(values[index]), proof, root)
    refuse(values[index], proof, flip(root))
    for place, sibling in enumerate(proof.siblings):
        siblings = (*proof.siblings[:place], flip(sibling), *proof.siblings[place + 1 :])
        refuse(values[index], replace(proof, siblings=siblings), root)
    refuse(values[index], replace(proof, siblings=(*proof.siblings, root)), root)
    refuse(
        values[index], replace(proof, siblings=proof.siblings[:-1]), root
    ) if proof.siblings else None


@given(values=distinct, data=st.data())
def test_a_leaf_is_nowhere_but_at_its_place(values, data):
    """No other place, and no other size, goes with the same siblings."""
    index = data.draw(st.integers(0, len(values) - 1))
    proof, root = get_proof(values, index), get_root(values)
    for other in range(len(values)):
        if other != index:
            refuse(values[index], replace(proof, index=other), root)
    for size in {*range(2 * len(values) + 2), 2**63, 2**64, 2**300} - {len(values)}:
        refuse(values[index], replace(proof, size=size), root)


def test_the_last_of_three_is_not_the_second_of_two():
    """Both proofs are one sibling; only the size inside the root tells them apart."""
    values = [leaf(1), leaf(2), leaf(3)]
    proof = get_proof(values, 2)
    assert len(proof.siblings) == 1
    refuse(leaf(3), InclusionProof(1, 2, proof.siblings), get_root(values))


def test_an_inner_node_is_no_leaf():
    """The second preimage of trees without prefixes: a node passed off as a leaf above it."""
    values = [leaf(n) for n in range(4)]
    root = get_root(values)
    left = hash_leaf(values[0]) + hash_leaf(values[1])
    right = hash_node(hash_leaf(values[2]), hash_leaf(values[3]))
    refuse(left, InclusionProof(0, 2, (right,)), root)
    refuse(keccak(b"\x01" + left), InclusionProof(0, 2, (right,)), root)
    assert get_root([left, values[2] + values[3]]) != root


@given(values=distinct)
def test_order_and_number_are_in_the_root(values):
    root = get_root(values)
    assert get_root(values[::-1]) != root
    assert get_root(values[:-1]) != root
    assert get_root([*values, values[-1]]) != root


def test_the_empty_tree():
    assert get_root([]) == EMPTY_ROOT
    refuse(leaf(1), InclusionProof(0, 0, ()), EMPTY_ROOT)
    refuse(leaf(1), InclusionProof(-1, 1, ()), get_root([leaf(1)]))
    with pytest.raises(IndexError):
        get_proof([leaf(1)], 1)


def test_shape_by_hand():
    a, b, c = (hash_leaf(leaf(n)) for n in (1, 2, 3))
    top = keccak(b"\x01" + keccak(b"\x01" + a + b) + c)
    assert get_root([leaf(1), leaf(2), leaf(3)]) == keccak(b"\x02" + (3).to_bytes(8, "big") + top)
