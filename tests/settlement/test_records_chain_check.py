"""A proof held against what its transaction committed, of which a recorder may put in several."""

import msgspec
import pytest
from eth_abi.abi import encode

from hanse.chain.chain_types import Header, Log, TransactionReceipt
from hanse.chain.records import Records
from hanse.contracts.artifacts import load_artifact
from hanse.protocol.errors import VerificationError
from hanse.protocol.records import Commit, RecordProof
from hanse.protocol.signatures import ZERO_HASH
from hanse.settlement.records.chain_check import ChainRecords, verify_on_chain
from tests.settlement.test_records_watch import ADDRESS, make_commits

RECORDS, OTHER = "0x" + "5e" * 20, "0x" + "dd" * 20
BLOCK, BLOCK_HASH, TRANSACTION = 9, "0x" + "99" * 32, "0x" + "77" * 32


class OneTransaction:
    """A node whose chain has one transaction, with these logs."""

    def __init__(self, logs: list[Log]) -> None:
        self.receipt = TransactionReceipt(
            TRANSACTION, BLOCK, BLOCK_HASH, True, 100_000, 1, tuple(logs)
        )

    async def fetch_receipt(self, transaction_hash: str) -> TransactionReceipt | None:
        return self.receipt if transaction_hash == TRANSACTION else None

    async def fetch_head(self) -> Header:
        return Header(BLOCK + 5, "0x" + "9e" * 32, BLOCK_HASH, 1_900_000_060, 1)

    async def fetch_header(self, number: int) -> Header:
        return Header(number, BLOCK_HASH, ZERO_HASH, 1_900_000_000, 1)


def make_log(recorder: str, commit: Commit) -> Log:
    topic = load_artifact("Records").events["Committed"].topic
    topics = (topic, encode(["address"], [recorder]), encode(["uint256"], [commit.number]))
    said = (commit.root, commit.count, commit.fee_total, commit.head)
    data = encode(
        ["bytes32", "uint256", "uint256", "bytes32"],
        [bytes.fromhex(one[2:]) if isinstance(one, str) else one for one in said],
    )
    return Log(RECORDS, topics, data, BLOCK, BLOCK_HASH, TRANSACTION, commit.number)


def make_view(*logs: Log) -> ChainRecords:
    node = OneTransaction(list(logs))
    return ChainRecords(node, Records(node, RECORDS), 2)


def make_proof_of(commit: Commit) -> RecordProof:
    return RecordProof(ADDRESS, commit, ZERO_HASH, ZERO_HASH, 0, (), TRANSACTION, BLOCK)


async def test_each_of_several_commits_in_one_transaction_is_found():
    first, second, third = make_commits(3)
    view = make_view(*(make_log(ADDRESS, one) for one in (first, second, third)))
    for commit in (first, second, third):
        await verify_on_chain(view, make_proof_of(commit))
        found = await view.fetch_committed(TRANSACTION, ADDRESS, commit.number)
        assert found == msgspec.structs.replace(commit, previous_head=ZERO_HASH)
    forged = msgspec.structs.replace(second, root=third.root)
    with pytest.raises(VerificationError, match=f"the chain has root {second.root}"):
        await verify_on_chain(view, make_proof_of(forged))


async def test_what_the_transaction_has_instead_is_named():
    first, second, third = make_commits(3)
    view = make_view(make_log(OTHER, third), make_log(ADDRESS, first), make_log(ADDRESS, second))
    with pytest.raises(VerificationError, match=r"the chain has number 1 in .* the proof says 3"):
        await verify_on_chain(view, make_proof_of(third))
    with pytest.raises(VerificationError, match="commits nothing for recorder"):
        await verify_on_chain(make_view(make_log(OTHER, third)), make_proof_of(third))
