"""Records: a hash chain for each recorder, and nothing else."""

import pytest
from eth_abi.abi import encode

from hanse.contracts.artifacts import load_artifact
from hanse.protocol.signatures import keccak
from tests.contracts.local_evm import Hanse, Key, key_of, reverts

ROOT = b"\x5a" * 32
COMMIT_GAS_MAX = 60_000


@pytest.fixture
def recorder() -> Key:
    return key_of("recorder")


def next_head(head: bytes, root: bytes, count: int, fee_total: int) -> bytes:
    """The rule as docs/decisions/0013 states it, without the contract."""
    return keccak(
        encode(["bytes32", "bytes32", "uint256", "uint256"], [head, root, count, fee_total])
    )


def commit(hanse: Hanse, recorder: Key, root: bytes, count: int, fee_total: int) -> bytes:
    outcome = hanse.chain.call(recorder.address, hanse.records, "commit", root, count, fee_total)
    (head,) = outcome.output
    number, stored = hanse.chain.view(hanse.records, "get_head", recorder.address)
    assert stored == head
    assert outcome.event("Committed") == {
        "recorder": recorder.address,
        "number": number,
        "root": root,
        "count": count,
        "fee_total": fee_total,
        "head": head,
    }
    return bytes(head)


def test_a_recorders_head_chains_all_its_commits(bare: Hanse, recorder: Key) -> None:
    assert bare.chain.view(bare.records, "get_head", recorder.address) == (0, bytes(32))
    expected = bytes(32)
    for number in range(1, 5):
        root = keccak(bytes((number,)))
        expected = next_head(expected, root, number, number * 1_000)
        assert commit(bare, recorder, root, number, number * 1_000) == expected
        assert bare.chain.view(bare.records, "get_head", recorder.address) == (number, expected)


def test_the_same_root_twice_gives_another_head(bare: Hanse, recorder: Key) -> None:
    assert commit(bare, recorder, ROOT, 1, 5) != commit(bare, recorder, ROOT, 1, 5)


def test_recorders_do_not_touch_each_other(bare: Hanse, recorder: Key, attacker: Key) -> None:
    head = commit(bare, recorder, ROOT, 3, 7)
    commit(bare, attacker, keccak(b"other"), 3, 7)
    assert bare.chain.view(bare.records, "get_head", recorder.address) == (1, head)


@pytest.mark.parametrize(
    ("root", "count", "reason"),
    [(bytes(32), 1, "root"), (ROOT, 0, "count"), (bytes(32), 0, "root")],
)
def test_nothing_is_not_committed(
    bare: Hanse, recorder: Key, root: bytes, count: int, reason: str
) -> None:
    with reverts(reason):
        commit(bare, recorder, root, count, 0)
    assert bare.chain.view(bare.records, "get_head", recorder.address) == (0, bytes(32))


def test_receipts_without_a_fee_are_recorded(bare: Hanse, recorder: Key) -> None:
    commit(bare, recorder, ROOT, 2**64, 0)
    commit(bare, recorder, b"\xff" * 32, 2**256 - 1, 2**256 - 1)


def test_a_commit_costs_the_same_whatever_is_under_the_root(bare: Hanse, recorder: Key) -> None:
    """Also the first two, which pay for fresh storage."""
    artifact = load_artifact("Records")
    for number in range(4):
        for count in (1, 10**4, 10**9):
            data = artifact.encode_call("commit", ROOT, count, count * 10**6)
            assert bare.chain.gas_of(recorder.address, bare.records, data) <= COMMIT_GAS_MAX
        commit(bare, recorder, ROOT, number + 1, 1)
