"""Events of our contracts, read k blocks below the head, each applied exactly once.

    index = EventIndex(rpc, [escrow.contract, registry.contract], storage,
                       start_block=d.start_block, confirmations=d.confirmations)
    task = asyncio.create_task(index.run())

One round takes the blocks after the checkpoint up to head - k, fetches their logs, proves that they
hang on the checkpoint and that the chain did not change meanwhile, and hands one `EventBatch` to
`storage.apply_batch`, which stores meaning and checkpoint in one transaction. So a crash anywhere
repeats a round or not, never half of it. A round holds at most `LOGS_PER_ROUND_MAX` logs, or one
block's; so an index that starts years late catches up in bounded memory.

A reorganisation shallower than k is never seen here: its blocks were not read yet. One that changes
a block at or below the checkpoint breaks what we told others. Then `InvariantError` stops the
reader, and a person decides: `rewind` undoes everything above the newest block that the chain still
    has.

Source: logs by eth_getLogs; limits on ranges and results as public nodes set them.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from hanse.chain.chain_types import BlockNumber, ChainError, Event, Header, Log
from hanse.chain.contract import Contract
from hanse.chain.rpc import BATCH_MAX, Rpc
from hanse.chain.storage import Checkpoint, EventBatch, IndexStorage
from hanse.protocol.errors import InvariantError, TransientError
from hanse.protocol.signatures import Hash32, keccak, to_bytes

BLOCKS_PER_ROUND_MAX = 2_000
"""Blocks of one round when catching up; common nodes refuse ranges above 2,000 to 10,000."""

LOGS_PER_ROUND_MAX = 5_000
"""Logs of one round when catching up: some 15 MB while they are decoded and folded, and the turn to
write for half a second. A range that brings more is cut at a block, and the next is asked
smaller."""

LINKED_BLOCKS_MAX = 100
"""Up to so many new blocks every header is fetched (one exchange) and its parent hash checked."""

POLL_INTERVAL_S = 1.0
"""Pause when nothing is new: no chain of use has faster blocks, and a look costs some
milliseconds.
"""

LogFilter = tuple[bytes | None, ...]
"""Topics that a log must have, by position; None takes any. A log counts if one filter fits."""

_log = logging.getLogger(__name__)


class EventIndex:
    """One reader of one set of contracts, or of those of their logs that `filters` take."""

    def __init__(
        self,
        rpc: Rpc,
        contracts: Sequence[Contract],
        storage: IndexStorage,
        *,
        start_block: BlockNumber,
        confirmations: int,
        filters: Sequence[LogFilter] = ((),),
    ) -> None:
        self._rpc = rpc
        self._filters = filters
        self._contracts = {contract.address: contract for contract in contracts}
        self._storage = storage
        self._start_block = start_block
        self._confirmations = confirmations
        self._range_blocks = BLOCKS_PER_ROUND_MAX
        self._refused_blocks = 2 * BLOCKS_PER_ROUND_MAX  # a range that the node would not answer
        self._turn = asyncio.Lock()  # two rounds at once would apply the same blocks twice
        # The head at which nothing was left to apply, and what was applied by then: the same head
        # has the same blocks below it.
        self._done: tuple[Hash32, Checkpoint | None] | None = None

    async def read_checkpoint(self) -> Checkpoint | None:
        """The block up to which everything is applied; None before the first round."""
        checkpoints = await self._storage.read_checkpoints()
        return checkpoints[0] if checkpoints else None

    async def advance(self) -> EventBatch | None:
        """Apply the next blocks, if there are any, and return what was applied.

        Callers take turns: one that waited goes on where the one before it ended.

        Raises:
            TransientError: the node does not answer, lags, or its chain changed while we read; try
                again.
            InvariantError: `chain_reorganised`: a block that was applied has left the chain.
        """
        async with self._turn:
            return await self._advance()

    async def _advance(self) -> EventBatch | None:
        head = await self._rpc.fetch_head()
        if self._done is not None and self._done[0] == head.hash:
            return None
        self._done = None
        checkpoint = await self.read_checkpoint()
        first = self._start_block if checkpoint is None else checkpoint.number + 1
        confirmed = head.number - self._confirmations
        if checkpoint is not None:
            await self._verify_checkpoint(checkpoint, head)
        if confirmed < first:
            self._done = (head.hash, checkpoint)
            return None
        batch = await self._fetch_batch(
            first, min(confirmed, first + self._range_blocks - 1), checkpoint
        )
        await self._storage.apply_batch(batch)
        return batch

    async def batches(
        self, *, poll_interval_s: float = POLL_INTERVAL_S
    ) -> AsyncIterator[EventBatch]:
        """Batches as they are confirmed, each applied already; without end."""
        while True:
            try:
                batch = await self.advance()
            except (TransientError, ChainError) as error:
                _log.warning("the event index waits: %s", error.message)
                batch = None
            if batch is None:
                await asyncio.sleep(poll_interval_s)
            else:
                yield batch

    async def run(self, *, poll_interval_s: float = POLL_INTERVAL_S) -> None:
        """Advance for ever; ends by cancellation or `InvariantError`."""
        async for batch in self.batches(poll_interval_s=poll_interval_s):
            _log.debug("indexed to block %s, %s events", batch.checkpoint.number, len(batch.events))

    async def catch_up(self) -> Checkpoint | None:
        """Advance until nothing is confirmed that is not applied; returns the checkpoint."""
        while await self.advance() is not None:
            pass
        return self._done[1] if self._done is not None else await self.read_checkpoint()

    async def rewind(self) -> Checkpoint | None:
        """Undo all above the newest checkpoint that is still on the chain; None if that is all."""
        ancestor = None
        async with self._turn:
            self._done = None
            for checkpoint in await self._storage.read_checkpoints():
                header = await self._rpc.fetch_header(checkpoint.number)
                if header is not None and header.hash == checkpoint.hash:
                    ancestor = checkpoint
                    break
            await self._storage.rollback_index(ancestor)
        return ancestor

    async def _verify_checkpoint(self, checkpoint: Checkpoint, head: Header) -> None:
        header = await self._rpc.fetch_header(checkpoint.number)
        if header is None:
            if head.number >= checkpoint.number:
                raise _changed_while_reading(checkpoint.number)
            raise TransientError(
                "chain_unavailable",
                f"the node's head is {head.number}, below the applied block"
                f" {checkpoint.number}: it lags, or its chain was replaced; wait, use another node,"
                " or restore the chain's state",
            )
        if header.hash != checkpoint.hash:
            # A node that lags may still stand on a branch that lost. Only one that is as deep as
            # ours was contradicts it.
            buried = await self._rpc.fetch_buried(checkpoint.number, self._confirmations)
            if buried.hash == checkpoint.hash:
                raise _changed_while_reading(checkpoint.number)
            raise InvariantError(
                "chain_reorganised",
                f"block {checkpoint.number} was applied as {checkpoint.hash} and is now"
                f" {header.hash}: the chain changed more than {self._confirmations} blocks deep."
                " Stop serving, check the node against another one, then rewind the index and raise"
                " the confirmations",
                details={
                    "block": checkpoint.number,
                    "applied": checkpoint.hash,
                    "now": header.hash,
                },
            )

    async def _fetch_batch(
        self, first: BlockNumber, last: BlockNumber, checkpoint: Checkpoint | None
    ) -> EventBatch:
        end = await self._rpc.fetch_header(last)
        if end is None:
            raise _changed_while_reading(last)
        logs, last = await self._fetch_logs(first, last)
        headers = await self._fetch_headers(first, last, logs)
        if last == end.number and headers[last].hash != end.hash:
            raise _changed_while_reading(last)
        self._verify_links(headers, checkpoint)
        await self._verify_complete(headers, logs)
        events: list[Event] = []
        for log in logs:
            header = headers[log.block_number]
            if log.block_hash != header.hash:
                raise _changed_while_reading(log.block_number)
            event = self._contracts[log.address].find_event(log, header.timestamp_s)
            if event is not None:
                events.append(event)
        # Asked again at the end, with what lies on it: if the last block stands and is buried, so
        # are all its ancestors, whichever branch the head was of that we counted back from.
        again = await self._rpc.fetch_buried(last, self._confirmations)
        if again.hash != headers[last].hash:
            raise _changed_while_reading(last)
        return EventBatch(first, Checkpoint(last, again.hash), again.timestamp_s, tuple(events))

    async def _fetch_logs(
        self, first: BlockNumber, last: BlockNumber
    ) -> tuple[list[Log], BlockNumber]:
        """Logs of as much of the range as the node will answer, and where that ends."""
        while True:
            try:
                logs = await self._fetch_filtered(first, last)
                break
            except ChainError:
                if last == first:
                    raise
                self._refused_blocks = last - first + 1
                last = first + (last - first) // 2
        inside = [
            log
            for log in logs
            if first <= log.block_number <= last and log.address in self._contracts
        ]
        kept, last = _cut_at_block(inside, last)
        self._set_range(last - first + 1, len(kept))
        return kept, last

    def _set_range(self, blocks: int, logs: int) -> None:
        """How many blocks to ask for next: twice as many, within what node and round can hold."""
        # Forgotten by and by: a node may have been busy, or the contracts were.
        self._refused_blocks += self._refused_blocks // 16 + 1
        fitting = blocks * LOGS_PER_ROUND_MAX // max(1, logs)
        most = min(BLOCKS_PER_ROUND_MAX, 2 * blocks, fitting, self._refused_blocks // 2)
        self._range_blocks = max(1, most)

    async def _fetch_filtered(self, first: BlockNumber, last: BlockNumber) -> list[Log]:
        found: dict[tuple[BlockNumber, int], Log] = {}
        for filter_ in self._filters:
            topics = [None if topic is None else "0x" + topic.hex() for topic in filter_]
            for log in await self._rpc.fetch_logs(
                list(self._contracts), first=first, last=last, topics=topics
            ):
                found[log.block_number, log.log_index] = log
        return [found[place] for place in sorted(found)]

    async def _fetch_headers(
        self, first: BlockNumber, last: BlockNumber, logs: Sequence[Log]
    ) -> dict[BlockNumber, Header]:
        """Every header of a short range; of a long one the ends and those with logs."""
        if last - first < LINKED_BLOCKS_MAX:
            found = await self._rpc.fetch_headers(first, last)
        else:
            numbers = sorted({first, last, *(log.block_number for log in logs)})
            return await self._fetch_headers_at(numbers)
        return {header.number: replace(header, transaction_hashes=()) for header in found}

    async def _fetch_headers_at(self, numbers: Sequence[BlockNumber]) -> dict[BlockNumber, Header]:
        """A page at a time: a header comes with the hashes of all its transactions."""
        headers: dict[BlockNumber, Header] = {}
        for start in range(0, len(numbers), BATCH_MAX):
            for header in await self._rpc.fetch_headers_at(numbers[start : start + BATCH_MAX]):
                headers[header.number] = replace(header, transaction_hashes=())
        return headers

    @staticmethod
    def _verify_links(headers: dict[BlockNumber, Header], checkpoint: Checkpoint | None) -> None:
        """Each header names the one before it as parent; the first hangs on the checkpoint."""
        hashes = {number: header.hash for number, header in headers.items()}
        if checkpoint is not None:
            hashes[checkpoint.number] = checkpoint.hash
        for number, header in headers.items():
            if hashes.get(number - 1, header.parent_hash) != header.parent_hash:
                raise _changed_while_reading(number)

    async def _verify_complete(
        self, headers: dict[BlockNumber, Header], logs: Sequence[Log]
    ) -> None:
        """A node whose log index lags answers "no logs" for a block that has some.

        The header's bloom filter says where ours may be; where it does and none came, the
        block's receipts decide.
        """
        with_logs = {log.block_number for log in logs}
        for number, header in headers.items():
            if number in with_logs or not self._may_hold_ours(header.logs_bloom):
                continue
            if await self._rpc.fetch_has_logs(number, frozenset(self._contracts), self._filters):
                raise TransientError(
                    "chain_unavailable",
                    f"the node answers no logs for block {number}, whose receipts hold some:"
                    " its log index lags; try again",
                )

    def _may_hold_ours(self, bloom: bytes) -> bool:
        return any(
            _bloom_has(bloom, to_bytes(address))
            and any(_bloom_has(bloom, e.topic) for e in contract.artifact.events.values())
            and any(all(t is None or _bloom_has(bloom, t) for t in f) for f in self._filters)
            for address, contract in self._contracts.items()
        )


def _cut_at_block(logs: list[Log], last: BlockNumber) -> tuple[list[Log], BlockNumber]:
    """The logs of as many whole blocks as a round may hold, at least of one, and the last block."""
    if len(logs) <= LOGS_PER_ROUND_MAX:
        return logs, last
    beyond = logs[LOGS_PER_ROUND_MAX].block_number  # not wholly within
    if beyond == logs[0].block_number:
        beyond += 1
    return [log for log in logs if log.block_number < beyond], beyond - 1


def _bloom_has(bloom: bytes, item: bytes) -> bool:
    """Yellow Paper, 4.4.1: three 11-bit numbers of the item's hash name the bits that it sets."""
    if len(bloom) != 256:
        return False
    digest = keccak(item)
    bits = (int.from_bytes(digest[i : i + 2], "big") & 0x7FF for i in (0, 2, 4))
    return all(bloom[255 - bit // 8] >> (bit % 8) & 1 for bit in bits)


def _changed_while_reading(number: BlockNumber) -> TransientError:
    return TransientError(
        "chain_unavailable", f"the chain changed around block {number} while it was read; try again"
    )
