"""The event index on a real node: each confirmed event once, across restarts, lag and reorgs."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from chain_parts import CHAIN_ID, FaultyTransport, lose, make_funded_key, mine

from hanse.chain import (
    Asset,
    ChainError,
    EventBatch,
    EventIndex,
    Key,
    LocalNode,
    MemoryIndexStorage,
    MemoryOutboxStorage,
    Outbox,
    Rpc,
    get_contract_address,
)
from hanse.chain.chain_types import Call
from hanse.contracts import load_artifact
from hanse.protocol.errors import InvariantError, TransientError

K = 2


class Minter:
    """Deploys a test asset and mints from it: one Transfer event each."""

    def __init__(self, rpc: Rpc, key: Key) -> None:
        self.rpc = rpc
        self.outbox = Outbox(rpc, key, MemoryOutboxStorage(), chain_id=CHAIN_ID, confirmations=0)
        self.asset = Asset(rpc, get_contract_address(key.address, 0))
        self.count = 0

    async def deploy(self) -> None:
        data = load_artifact("TestAsset").bytecode
        await self.outbox.submit("deploy", Call(to=None, data=data), poll_interval_s=0.002)

    async def mint(self, amount: int) -> None:
        self.count += 1
        await self.outbox.submit(
            f"mint-{self.count}",
            self.asset.mint(self.outbox.address, amount),
            poll_interval_s=0.002,
        )


@pytest.fixture
async def minter(rpc: Rpc) -> Minter:
    minter = Minter(rpc, await make_funded_key(rpc))
    await minter.deploy()
    return minter


@pytest.fixture
async def faulty(node: LocalNode) -> AsyncIterator[FaultyTransport]:
    transport = FaultyTransport(node.url)
    yield transport
    await transport.close()


def make_index(
    rpc: Rpc, minter: Minter, storage: MemoryIndexStorage, confirmations: int = K
) -> EventIndex:
    contract = Asset(rpc, minter.asset.address).contract
    return EventIndex(rpc, [contract], storage, start_block=1, confirmations=confirmations)


def amounts(storage: MemoryIndexStorage) -> list[int]:
    return [event.fields["amount"] for event in storage.events if event.name == "Transfer"]


async def test_events_are_seen_k_blocks_deep_and_not_before(rpc: Rpc, minter: Minter) -> None:
    storage = MemoryIndexStorage()
    index = make_index(rpc, minter, storage)
    await minter.mint(11)
    mined_at = (await rpc.fetch_head()).number
    await index.catch_up()
    assert amounts(storage) == []
    await mine(rpc, K)
    checkpoint = await index.catch_up()
    assert amounts(storage) == [11]
    assert checkpoint is not None
    assert checkpoint.number == mined_at
    (event,) = storage.events
    assert (event.contract, event.block_number) == ("TestAsset", mined_at)
    assert event.fields["receiver"] == minter.outbox.address
    header = await rpc.fetch_header(mined_at)
    assert header is not None
    assert event.timestamp_s == header.timestamp_s


async def test_while_the_head_stays_a_look_is_one_question(
    rpc: Rpc, minter: Minter, faulty: FaultyTransport
) -> None:
    asked: list[str] = []
    faulty.after = lambda method, params, answer: asked.append(method) or answer
    storage = MemoryIndexStorage()
    index = make_index(Rpc(faulty, retry_pause_s=0), minter, storage)
    await minter.mint(5)
    await mine(rpc, K)
    checkpoint = await index.catch_up()
    asked.clear()
    assert await index.catch_up() == checkpoint
    assert asked == ["eth_getBlockByNumber"]
    await minter.mint(6)
    await mine(rpc, K)
    await index.catch_up()
    assert amounts(storage) == [5, 6]
    await index.rewind()
    asked.clear()
    await index.catch_up()
    assert len(asked) > 1


async def test_a_restart_goes_on_where_it_was(rpc: Rpc, minter: Minter) -> None:
    storage = MemoryIndexStorage()
    for amount in (1, 2):
        await minter.mint(amount)
    await mine(rpc, K)
    await make_index(rpc, minter, storage).catch_up()
    for amount in (3, 4):
        await minter.mint(amount)
    await mine(rpc, K)
    await make_index(rpc, minter, storage).catch_up()
    assert amounts(storage) == [1, 2, 3, 4]


async def test_a_filter_takes_one_holders_transfers_and_misses_none_of_them(
    rpc: Rpc, minter: Minter, faulty: FaultyTransport
) -> None:
    """A busy asset costs its other holders nothing; a forgotten log is found out."""
    holder = "0x" + "a1" * 20
    word = bytes(12) + bytes.fromhex(holder[2:])
    topic = minter.asset.contract.artifact.events["Transfer"].topic
    storage = MemoryIndexStorage()

    def make(rpc: Rpc) -> EventIndex:
        return EventIndex(
            rpc,
            [minter.asset.contract],
            storage,
            start_block=1,
            confirmations=0,
            filters=((topic, word), (topic, None, word)),
        )

    await minter.mint(100)
    await make(rpc).catch_up()
    assert storage.events == []
    await minter.outbox.submit("to", minter.asset.transfer(holder, 7), poll_interval_s=0.002)

    def forget(method: str, params: list[Any], result: Any) -> Any:
        return [] if method == "eth_getLogs" else result

    faulty.after = forget
    with pytest.raises(TransientError, match="log index lags"):
        await make(Rpc(faulty, retry_pause_s=0)).catch_up()
    await make(rpc).catch_up()
    assert amounts(storage) == [7]
    assert [e.fields["receiver"] for e in storage.events] == [holder]


async def test_two_who_advance_at_once_apply_each_block_once(rpc: Rpc, minter: Minter) -> None:
    storage = MemoryIndexStorage()
    index = make_index(rpc, minter, storage)
    for amount in (1, 2, 3):
        await minter.mint(amount)
    await mine(rpc, K)
    await asyncio.gather(*(index.catch_up() for _ in range(4)))
    assert amounts(storage) == [1, 2, 3]


@pytest.mark.parametrize("exchange", range(6))
async def test_a_crash_at_any_exchange_repeats_a_round_or_not(
    rpc: Rpc, minter: Minter, faulty: FaultyTransport, exchange: int
) -> None:
    storage = MemoryIndexStorage()
    left = exchange

    def before(method: str, params: list[Any]) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise lose()

    await minter.mint(1)
    await mine(rpc, K)
    faulty.before = before
    with pytest.raises(TransientError):
        await make_index(Rpc(faulty, retry_pause_s=0), minter, storage).catch_up()
    await make_index(rpc, minter, storage).catch_up()
    await make_index(rpc, minter, storage).catch_up()
    assert amounts(storage) == [1]


async def test_a_shallow_reorganisation_is_never_seen(rpc: Rpc, minter: Minter) -> None:
    storage = MemoryIndexStorage()
    index = make_index(rpc, minter, storage)
    await mine(rpc, K)
    await index.catch_up()
    await minter.mint(1)
    await rpc.request("anvil_reorg", 1, [])
    await mine(rpc, K + 1)
    await index.catch_up()
    assert amounts(storage) == []


async def test_a_reorganisation_below_the_checkpoint_stops_and_can_be_rewound(
    rpc: Rpc, minter: Minter
) -> None:
    storage = MemoryIndexStorage()
    index = make_index(rpc, minter, storage)
    await minter.mint(1)
    await mine(rpc, K)
    await index.catch_up()
    before = await index.read_checkpoint()
    await minter.mint(2)
    await mine(rpc, K)
    await index.catch_up()
    assert amounts(storage) == [1, 2]
    await rpc.request("anvil_reorg", K + 1, [])
    await mine(rpc, 3)
    with pytest.raises(InvariantError, match="then rewind the index") as caught:
        await index.advance()
    assert caught.value.code == "chain_reorganised"
    assert amounts(storage) == [1, 2], "nothing changes until a person decides"
    assert await index.rewind() == before
    await index.catch_up()
    assert amounts(storage) == [1]


async def test_a_chain_replaced_by_a_shorter_one_is_waited_for(rpc: Rpc, minter: Minter) -> None:
    snapshot = await rpc.request("evm_snapshot")
    await mine(rpc, 5)
    storage = MemoryIndexStorage()
    index = make_index(rpc, minter, storage)
    await index.catch_up()
    await rpc.request("evm_revert", snapshot)
    with pytest.raises(TransientError, match="it lags, or its chain was replaced"):
        await index.advance()


async def test_a_chain_that_changes_while_it_is_read_gives_nothing(
    rpc: Rpc, minter: Minter, faulty: FaultyTransport
) -> None:
    """The last header changes between the first and the second look."""
    storage = MemoryIndexStorage()
    await minter.mint(1)
    await mine(rpc, K)
    asked: dict[str, int] = {}

    def after(method: str, params: list[Any], answer: Any) -> Any:
        if method == "eth_getBlockByNumber" and params[0] != "latest":
            asked[params[0]] = asked.get(params[0], 0) + 1
            if asked[params[0]] == 3:
                return {**answer, "hash": "0x" + "ab" * 32}
        return answer

    faulty.after = after
    index = make_index(Rpc(faulty), minter, storage)
    with pytest.raises(TransientError, match=r"changed around block|two branches"):
        await index.advance()
    assert storage.events == []
    assert await index.read_checkpoint() is None
    await index.catch_up()
    assert amounts(storage) == [1]


async def test_a_head_of_another_branch_confirms_nothing(
    rpc: Rpc, minter: Minter, faulty: FaultyTransport
) -> None:
    """One of two nodes behind an address counts, the other is asked (found by chaos, seed 11)."""
    storage = MemoryIndexStorage()
    await minter.mint(1)

    def after(method: str, params: list[Any], answer: Any) -> Any:
        if method == "eth_getBlockByNumber" and params[0] == "latest":
            return {**answer, "number": hex(int(answer["number"], 16) + K)}
        return answer

    faulty.after = after
    index = make_index(Rpc(faulty, retry_pause_s=0), minter, storage)
    with pytest.raises(TransientError, match="lacks block"):
        await index.advance()
    assert storage.events == []


async def test_a_node_that_lags_on_a_lost_branch_stops_nobody(
    rpc: Rpc, minter: Minter, faulty: FaultyTransport
) -> None:
    """It shows another block at the checkpoint's height, but not k blocks on it."""
    storage = MemoryIndexStorage()
    await minter.mint(1)
    await mine(rpc, K)
    index = make_index(Rpc(faulty, retry_pause_s=0), minter, storage)
    checkpoint = await index.catch_up()
    assert checkpoint is not None
    await mine(rpc, 1)

    def after(method: str, params: list[Any], answer: Any) -> Any:
        if method != "eth_getBlockByNumber" or params[0] == "latest" or answer is None:
            return answer
        lost = {**answer, "hash": "0x" + "ab" * 32}
        return lost if int(answer["number"], 16) == checkpoint.number else None

    faulty.after = after
    with pytest.raises(TransientError, match="lacks block"):
        await index.advance()
    faulty.after = lambda method, params, answer: answer
    await index.catch_up()
    assert amounts(storage) == [1]


async def test_headers_that_do_not_hang_on_one_another_are_refused(
    rpc: Rpc, minter: Minter, faulty: FaultyTransport
) -> None:
    storage = MemoryIndexStorage()
    await mine(rpc, 6)

    def after(method: str, params: list[Any], answer: Any) -> Any:
        if method == "eth_getBlockByNumber" and params[0] == "0x3":
            return {**answer, "parentHash": "0x" + "cd" * 32}
        return answer

    faulty.after = after
    with pytest.raises(TransientError, match="around block 3"):
        await make_index(Rpc(faulty), minter, storage).advance()


async def test_logs_of_another_fork_are_refused(
    rpc: Rpc, minter: Minter, faulty: FaultyTransport
) -> None:
    storage = MemoryIndexStorage()
    await minter.mint(1)
    await mine(rpc, K)

    def after(method: str, params: list[Any], answer: Any) -> Any:
        if method == "eth_getLogs":
            return [{**log, "blockHash": "0x" + "ef" * 32} for log in answer]
        return answer

    faulty.after = after
    with pytest.raises(TransientError):
        await make_index(Rpc(faulty), minter, storage).advance()
    assert storage.events == []


async def test_logs_that_a_node_forgot_are_asked_for_again(
    rpc: Rpc, minter: Minter, faulty: FaultyTransport
) -> None:
    """Headers promise logs (bloom), the node answers none: its log index lags."""
    storage = MemoryIndexStorage()
    await minter.mint(1)
    await mine(rpc, K)
    faulty.after = lambda method, params, answer: [] if method == "eth_getLogs" else answer
    index = make_index(Rpc(faulty), minter, storage)
    with pytest.raises(TransientError, match="logs"):
        await index.advance()
    faulty.after = lambda method, params, answer: answer
    await index.catch_up()
    assert amounts(storage) == [1]


async def test_ranges_are_halved_until_the_node_answers(
    rpc: Rpc, minter: Minter, faulty: FaultyTransport
) -> None:
    storage = MemoryIndexStorage()
    for amount in range(1, 21):
        await minter.mint(amount)
    await mine(rpc, 200)
    widest = 0

    def before(method: str, params: list[Any]) -> None:
        nonlocal widest
        if method == "eth_getLogs":
            width = int(params[0]["toBlock"], 16) - int(params[0]["fromBlock"], 16) + 1
            if width > 16:
                raise ChainError("query returned more than 10000 results", reason="too many")
            widest = max(widest, width)

    faulty.before = before
    await make_index(Rpc(faulty), minter, storage).catch_up()
    assert amounts(storage) == list(range(1, 21))
    assert 1 < widest <= 16


async def test_a_long_backlog_is_read_in_bounded_rounds(rpc: Rpc, minter: Minter) -> None:
    await minter.mint(1)
    await mine(rpc, 300)
    await minter.mint(2)
    await mine(rpc, K)
    storage = MemoryIndexStorage()
    await make_index(rpc, minter, storage).catch_up()
    assert amounts(storage) == [1, 2]


async def test_batches_come_as_an_async_iterator(rpc: Rpc, minter: Minter) -> None:
    storage = MemoryIndexStorage()
    index = make_index(rpc, minter, storage)
    seen: list[EventBatch] = []

    async def read(enough: Callable[[], bool]) -> None:
        async for batch in index.batches(poll_interval_s=0.005):
            seen.append(batch)
            if enough():
                return

    reader = asyncio.create_task(read(lambda: amounts(storage) == [1, 2]))
    for amount in (1, 2):
        await minter.mint(amount)
        await mine(rpc, K)
    await asyncio.wait_for(reader, 10)
    assert [batch.first for batch in seen[1:]] == [b.checkpoint.number + 1 for b in seen[:-1]]


async def test_without_confirmations_the_head_itself_is_read(rpc: Rpc, minter: Minter) -> None:
    """Confirmations of 0 read up to the head itself."""
    storage = MemoryIndexStorage()
    await minter.mint(4)
    await make_index(rpc, minter, storage, confirmations=0).catch_up()
    assert amounts(storage) == [4]
