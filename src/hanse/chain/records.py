"""Records with types: a recorder's hash chain of roots at a stated block, and the call to add one.

    records = Records(rpc, deployment.records)
    head = await records.read_head(recorder, block=confirmed)
    await outbox.submit("interval-17", records.commit(root, count, fee_total))

    index = EventIndex(rpc, [records.contract], ...)      # Committed events
    committed = parse_committed(event)

Reads are views at `block`; writes return a `Call`; nothing is sent here. Promises and revert
reasons stand in `Records.vy`.
"""

from dataclasses import dataclass

from hanse.chain.chain_types import BlockNumber, Call, Event
from hanse.chain.contract import Contract
from hanse.chain.rpc import Rpc
from hanse.contracts.artifacts import load_artifact


@dataclass(frozen=True)
class RecordsHead:
    """Where a recorder's chain stands; number 0 and a zero head if it never committed.

    Attributes:
        number: how often it committed.
        head: hash chain over its commits, 32 bytes.
    """

    number: int
    head: bytes


@dataclass(frozen=True)
class Committed:
    """One commit, as its event tells it.

    Attributes:
        recorder: whose chain it is, lower-case address.
        number: counts the recorder's commits from 1.
        root: of the Merkle tree over the interval's receipts, 32 bytes.
        count: receipts under the root.
        fee_total: sum of their fees, base units.
        head: the recorder's chain after this commit, 32 bytes.
    """

    recorder: str
    number: int
    root: bytes
    count: int
    fee_total: int
    head: bytes


class Records:
    """Records at an address, through one node."""

    def __init__(self, rpc: Rpc, address: str) -> None:
        self.contract = Contract(rpc, load_artifact("Records"), address)
        self.address = self.contract.address

    async def read_head(self, recorder: str, *, block: BlockNumber) -> RecordsHead:
        """Number and head of a recorder's chain."""
        return RecordsHead(*await self.contract.read("get_head", recorder, block=block))

    def commit(self, root: bytes, count: int, fee_total: int) -> Call:
        """Add a root to the sender's chain: 32 bytes, over `count` receipts worth `fee_total`."""
        return self.contract.build(
            "commit", root, count, fee_total, label=f"commit {count} receipts"
        )


def parse_committed(event: Event) -> Committed:
    """A `Committed` event of Records with its types.

    Raises:
        ValueError: it is another event.
    """
    if (event.contract, event.name) != ("Records", "Committed"):
        raise ValueError(f"Records.Committed expected, {event.contract}.{event.name} given")
    return Committed(**event.fields)
