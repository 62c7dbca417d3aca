"""The outbox on a real node: once asked, once mined, whatever crashes, is lost or lies."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from chain_parts import (
    CHAIN_ID,
    Clock,
    Crash,
    CrashingStorage,
    FaultyTransport,
    is_open,
    lose,
    make_funded_key,
    mine,
    poll,
)

from hanse.chain import (
    Call,
    ChainError,
    FeePolicy,
    Key,
    LocalNode,
    MemoryOutboxStorage,
    Outbox,
    OutboxEntry,
    Rpc,
    TransactionState,
)
from hanse.chain.outbox.transactions import Transaction, sign_transaction
from hanse.protocol.errors import RequestError, TransientError

RECEIVER = "0x" + "22" * 20
K = 2


def pay(wei: int = 1) -> Call:
    return Call(to=RECEIVER, data=b"", value=wei, label=f"pay {wei} wei")


def make_outbox(rpc: Rpc, key: Key, storage: MemoryOutboxStorage, **settings: Any) -> Outbox:
    return Outbox(rpc, key, storage, chain_id=CHAIN_ID, confirmations=K, **settings)


async def finish(outbox: Outbox, rpc: Rpc, key: str, rounds: int = 30) -> OutboxEntry:
    """Step and mine until the entry is final."""
    for _ in range(rounds):
        await outbox.step()
        entry = await outbox.find(key)
        assert entry is not None
        if entry.is_final:
            return entry
        await mine(rpc)
    raise AssertionError(f"{entry} is not final after {rounds} rounds")


async def step_until_mined(outbox: Outbox, key: str) -> OutboxEntry:
    """Step without mining; the node answers a broadcast before it has mined it."""

    async def find_mined() -> OutboxEntry | None:
        await outbox.step()
        entry = await outbox.find(key)
        return entry if entry and entry.state is TransactionState.MINED else None

    found = await poll(find_mined)
    assert isinstance(found, OutboxEntry)
    return found


async def received(rpc: Rpc) -> int:
    return await rpc.fetch_balance(RECEIVER, block=(await rpc.fetch_head()).number)


@pytest.fixture
async def payer(rpc: Rpc) -> Key:
    return await make_funded_key(rpc)


@pytest.fixture
async def faulty(node: LocalNode) -> AsyncIterator[FaultyTransport]:
    transport = FaultyTransport(node.url)
    yield transport
    await transport.close()


async def test_confirmed_only_at_k_blocks(rpc: Rpc, payer: Key) -> None:
    outbox = make_outbox(rpc, payer, MemoryOutboxStorage())
    await outbox.enqueue("once", pay(5))
    await step_until_mined(outbox, "once")
    seen = []
    for _ in range(K + 1):
        await outbox.step()
        entry = await outbox.find("once")
        assert entry is not None
        seen.append(entry.state)
        await mine(rpc)
    assert seen == [TransactionState.MINED] * K + [TransactionState.CONFIRMED]
    assert await received(rpc) == 5


async def test_one_idempotency_key_is_one_transaction(rpc: Rpc, payer: Key) -> None:
    outbox = make_outbox(rpc, payer, MemoryOutboxStorage())
    await asyncio.gather(*(outbox.enqueue("once", pay(5)) for _ in range(20)))
    await finish(outbox, rpc, "once")
    await outbox.enqueue("once", pay(5))
    await finish(outbox, rpc, "once")
    assert await received(rpc) == 5
    with pytest.raises(RequestError, match="idempotency key 'once'"):
        await outbox.enqueue("once", pay(6))


async def test_many_in_order_with_consecutive_nonces(rpc: Rpc, payer: Key) -> None:
    storage = MemoryOutboxStorage()
    outbox = make_outbox(rpc, payer, storage)
    for i in range(40):
        await outbox.enqueue(f"pay-{i}", pay())
    await finish(outbox, rpc, "pay-39")
    entries = await storage.read_entries(outbox.scope, open_only=False)
    assert [entry.nonce for entry in entries] == list(range(40))
    assert await received(rpc) == 40


async def test_only_so_many_nonces_are_out_at_once(rpc: Rpc, payer: Key) -> None:
    await rpc.request("evm_setAutomine", False)
    storage = MemoryOutboxStorage()
    outbox = make_outbox(rpc, payer, storage)
    for i in range(20):
        await outbox.enqueue(f"pay-{i}", pay())
    for _ in range(3):
        await outbox.step()
    entries = await storage.read_entries(outbox.scope, open_only=True)
    assert sum(entry.nonce is not None for entry in entries) == 16
    await finish(outbox, rpc, "pay-19")
    assert await received(rpc) == 20


@pytest.mark.parametrize("dies_after_write", [False, True])
@pytest.mark.parametrize("write", range(6))
async def test_crash_at_every_write(
    rpc: Rpc, payer: Key, write: int, dies_after_write: bool
) -> None:
    storage = CrashingStorage()
    storage.writes_left, storage.dies_after_write = write, dies_after_write
    outbox = make_outbox(rpc, payer, storage)
    try:
        for i in range(2):
            await outbox.enqueue(f"pay-{i}", pay(7))
        for i in range(2):
            await finish(outbox, rpc, f"pay-{i}")
    except Crash:
        crashed = True
    else:
        crashed = False
    assert crashed, "there are at least 8 writes"
    storage.writes_left = None
    successor = make_outbox(rpc, payer, storage)
    for i in range(2):
        await successor.enqueue(f"pay-{i}", pay(7))  # a caller that does not know asks again
        assert (await finish(successor, rpc, f"pay-{i}")).state is TransactionState.CONFIRMED
    assert await received(rpc) == 14


@pytest.mark.parametrize("exchange", range(24))
async def test_crash_at_every_exchange(
    rpc: Rpc, payer: Key, faulty: FaultyTransport, exchange: int
) -> None:
    """Dies at the n-th exchange with the node; for odd n after the node has acted."""
    left = exchange // 2

    def before(method: str, params: list[Any]) -> None:
        nonlocal left
        left -= 1
        if left < 0 and exchange % 2 == 0:
            raise Crash

    def after(method: str, params: list[Any], answer: Any) -> Any:
        if left < 0:
            raise Crash
        return answer

    storage = MemoryOutboxStorage()
    outbox = make_outbox(Rpc(faulty), payer, storage)
    await outbox.enqueue("once", pay(3))
    faulty.before, faulty.after = before, after
    with pytest.raises(Crash):
        await finish(outbox, rpc, "once")
    successor = make_outbox(rpc, payer, storage)
    assert (await finish(successor, rpc, "once")).state is TransactionState.CONFIRMED
    assert await received(rpc) == 3


async def test_nothing_is_broadcast_that_is_not_stored(
    rpc: Rpc, payer: Key, faulty: FaultyTransport
) -> None:
    storage = MemoryOutboxStorage()
    stored_when_sent: list[bool] = []

    def before(method: str, params: list[Any]) -> None:
        if method == "eth_sendRawTransaction":
            known = [a.raw.hex() for e in storage._entries.values() for a in e.attempts]
            stored_when_sent.append(params[0][2:] in known)

    faulty.before = before
    outbox = make_outbox(Rpc(faulty), payer, storage)
    await outbox.enqueue("once", pay())
    await finish(outbox, rpc, "once")
    assert stored_when_sent == [True]


async def test_a_lost_broadcast_is_sent_again(
    rpc: Rpc, payer: Key, faulty: FaultyTransport
) -> None:
    losses = 3

    def before(method: str, params: list[Any]) -> None:
        nonlocal losses
        if method == "eth_sendRawTransaction" and losses:
            losses -= 1
            raise lose()

    faulty.before = before
    outbox = make_outbox(Rpc(faulty, retry_pause_s=0), payer, MemoryOutboxStorage())
    await outbox.enqueue("once", pay(9))
    await finish(outbox, rpc, "once")
    assert losses == 0
    assert await received(rpc) == 9


async def test_a_lost_answer_is_no_second_transaction(
    rpc: Rpc, payer: Key, faulty: FaultyTransport
) -> None:
    def after(method: str, params: list[Any], answer: Any) -> Any:
        if method == "eth_sendRawTransaction":
            raise lose()
        return answer

    faulty.after = after
    outbox = make_outbox(Rpc(faulty, retry_pause_s=0), payer, MemoryOutboxStorage())
    await outbox.enqueue("once", pay(9))
    await finish(outbox, rpc, "once")
    assert await received(rpc) == 9


async def test_an_accepted_but_forgotten_transaction_is_sent_again(
    rpc: Rpc, payer: Key, faulty: FaultyTransport
) -> None:
    """The node says yes and drops it from its pool."""
    await rpc.request("evm_setAutomine", False)
    clock = Clock()
    policy = FeePolicy(rebroadcast_after_s=10, raise_after_s=1_000)
    outbox = make_outbox(rpc, payer, MemoryOutboxStorage(), clock=clock, fee_policy=policy)
    await outbox.enqueue("once", pay(4))
    await outbox.step()
    entry = await outbox.find("once")
    assert entry is not None
    await rpc.request("anvil_dropTransaction", entry.attempts[-1].hash)
    await mine(rpc)
    await outbox.step()
    assert await received(rpc) == 0
    clock.now_s += 10
    assert (await finish(outbox, rpc, "once")).state is TransactionState.CONFIRMED
    assert await received(rpc) == 4


async def test_a_stuck_transaction_is_raised_and_mined_once(rpc: Rpc, payer: Key) -> None:
    await rpc.request("evm_setAutomine", False)
    clock = Clock()
    policy = FeePolicy(raise_after_s=60, tip_wei=10**9)
    outbox = make_outbox(rpc, payer, MemoryOutboxStorage(), clock=clock, fee_policy=policy)
    await outbox.enqueue("once", pay(4))
    await outbox.step()
    # The market rises above what was offered.
    entry = await outbox.find("once")
    assert entry is not None
    high = entry.attempts[0].max_fee_wei + 1
    await rpc.request("anvil_setNextBlockBaseFeePerGas", hex(high))
    await mine(rpc)
    await outbox.step()
    assert is_open(await outbox.find("once"))
    clock.now_s += 60
    done = await finish(outbox, rpc, "once")
    assert done.state is TransactionState.CONFIRMED
    assert len(done.attempts) >= 2
    assert done.transaction_hash == done.attempts[-1].hash
    assert {done.nonce} == {0}
    assert await received(rpc) == 4


@pytest.mark.parametrize(("above_wei", "attempts"), [(1, 2), (0, 1)])
async def test_what_a_dead_process_offered_too_little_for_is_raised_at_the_start(
    rpc: Rpc, payer: Key, above_wei: int, attempts: int
) -> None:
    """A process that ends again and again before the minute is over would else never raise it."""
    await rpc.request("evm_setAutomine", False)
    storage = MemoryOutboxStorage()
    dying = make_outbox(rpc, payer, storage, clock=Clock())
    await dying.enqueue("once", pay(4))
    await dying.step()
    entry = await dying.find("once")
    assert entry is not None
    offered = entry.attempts[0].max_fee_wei
    await rpc.request("anvil_setNextBlockBaseFeePerGas", hex(offered + above_wei))
    await mine(rpc)
    await dying.step()
    assert is_open(await dying.find("once"))
    for _ in range(2):  # the second one has nothing to raise: its offer is above the base fee
        await make_outbox(rpc, payer, storage, clock=Clock()).step()
        found = await storage.find_entry(entry.scope, "once")
        assert found is not None
        assert len(found.attempts) == attempts
    done = await finish(make_outbox(rpc, payer, storage, clock=Clock()), rpc, "once")
    assert done.state is TransactionState.CONFIRMED
    assert {done.nonce} == {0}
    assert await received(rpc) == 4


async def test_above_the_cap_it_waits_and_says_why(rpc: Rpc, payer: Key) -> None:
    policy = FeePolicy(max_fee_cap_wei=10, tip_wei=1)
    outbox = make_outbox(rpc, payer, MemoryOutboxStorage(), fee_policy=policy)
    await outbox.enqueue("once", pay())
    await outbox.step()
    entry = await outbox.find("once")
    assert entry is not None
    assert entry.state is TransactionState.QUEUED
    assert "exceed the cap of 10 wei" in entry.reason


async def test_a_reorganisation_drops_the_transaction_and_it_comes_back(
    rpc: Rpc, payer: Key
) -> None:
    snapshot = await rpc.request("evm_snapshot")
    outbox = make_outbox(rpc, payer, MemoryOutboxStorage())
    await outbox.enqueue("once", pay(6))
    entry = await step_until_mined(outbox, "once")
    await rpc.request("evm_revert", snapshot)  # the chain forgets the block
    await mine(rpc)
    assert await received(rpc) == 0
    done = await finish(outbox, rpc, "once")
    assert done.state is TransactionState.CONFIRMED
    assert done.block_hash != entry.block_hash
    assert await received(rpc) == 6


async def test_a_reorganisation_that_moves_the_transaction(rpc: Rpc, payer: Key) -> None:
    outbox = make_outbox(rpc, payer, MemoryOutboxStorage())
    await outbox.enqueue("once", pay(6))
    entry = await step_until_mined(outbox, "once")
    raw = "0x" + entry.attempts[0].raw.hex()
    await rpc.request("anvil_reorg", 1, [])  # an empty block takes the height
    await rpc.request("evm_mine")
    await rpc.request("eth_sendRawTransaction", raw)  # and the transaction lands higher up
    done = await finish(outbox, rpc, "once")
    assert done.state is TransactionState.CONFIRMED
    assert done.block_number != entry.block_number
    assert await received(rpc) == 6


async def test_a_receipt_from_no_block_of_the_chain_is_not_believed(
    rpc: Rpc, payer: Key, faulty: FaultyTransport
) -> None:
    """The node swallows the transaction and shows a receipt all the same."""
    head = await rpc.fetch_head()

    def before(method: str, params: list[Any]) -> None:
        if method == "eth_sendRawTransaction":
            raise lose()

    def after(method: str, params: list[Any], answer: Any) -> Any:
        if method == "eth_getTransactionReceipt":
            return {
                "transactionHash": params[0],
                "blockNumber": hex(head.number),
                "blockHash": head.hash,
                "status": "0x1",
                "gasUsed": "0x5208",
                "logs": [],
            }
        return answer

    faulty.before, faulty.after = before, after
    outbox = make_outbox(Rpc(faulty, retry_pause_s=0), payer, MemoryOutboxStorage())
    await outbox.enqueue("once", pay(8))
    for _ in range(K + 3):
        await outbox.step()
        await mine(rpc)
    entry = await outbox.find("once")
    assert entry is not None
    assert entry.state is TransactionState.SIGNED
    faulty.before = lambda method, params: None
    faulty.after = lambda method, params, answer: answer
    assert (await finish(outbox, rpc, "once")).state is TransactionState.CONFIRMED
    assert await received(rpc) == 8


async def test_a_receipt_of_another_fork_is_not_believed(
    rpc: Rpc, payer: Key, faulty: FaultyTransport
) -> None:
    def after(method: str, params: list[Any], answer: Any) -> Any:
        if method == "eth_getTransactionReceipt" and answer is not None:
            return {**answer, "blockHash": "0x" + "dd" * 32}
        return answer

    faulty.after = after
    outbox = make_outbox(Rpc(faulty), payer, MemoryOutboxStorage())
    await outbox.enqueue("once", pay(2))
    for _ in range(K + 3):
        await outbox.step()
        await mine(rpc)
    entry = await outbox.find("once")
    assert entry is not None
    assert entry.state is TransactionState.SIGNED


async def test_a_head_of_another_branch_confirms_nothing(
    rpc: Rpc, payer: Key, faulty: FaultyTransport
) -> None:
    """Mined at the head of one node, counted from the head of another (found by chaos)."""

    def after(method: str, params: list[Any], answer: Any) -> Any:
        if method == "eth_getBlockByNumber" and params[0] == "latest":
            return {**answer, "number": hex(int(answer["number"], 16) + K)}
        return answer

    outbox = make_outbox(Rpc(faulty, retry_pause_s=0), payer, MemoryOutboxStorage())
    await outbox.enqueue("once", pay(2))
    await step_until_mined(outbox, "once")
    faulty.after = after
    with contextlib.suppress(ChainError):  # after it tracked, it asks for a state at that head
        await outbox.step()
    entry = await outbox.find("once")
    assert entry is not None
    assert entry.state is TransactionState.MINED
    faulty.after = lambda method, params, answer: answer
    assert (await finish(outbox, rpc, "once")).state is TransactionState.CONFIRMED


async def test_a_nonce_taken_by_a_foreign_transaction(rpc: Rpc, payer: Key) -> None:
    await rpc.request("evm_setAutomine", False)
    outbox = make_outbox(rpc, payer, MemoryOutboxStorage())
    await outbox.enqueue("once", pay(2))
    await outbox.step()
    # Another wallet program with the same key pays more for the same nonce.
    foreign = sign_transaction(
        payer, Transaction(CHAIN_ID, 0, 10**11, 10**12, 21_000, replace(pay(100)))
    )
    await rpc.send_raw(foreign.raw)
    await mine(rpc)
    assert await received(rpc) == 100
    await rpc.request("evm_setAutomine", True)
    done = await finish(outbox, rpc, "once")
    assert done.state is TransactionState.CONFIRMED
    assert done.nonce == 1
    assert await received(rpc) == 102


async def step_unseen(rpc: Rpc, faulty: Rpc, payer: Key) -> Outbox:
    """An outbox that cannot see what became of its transaction waits, however many blocks pass."""
    outbox = make_outbox(faulty, payer, MemoryOutboxStorage())
    await outbox.enqueue("once", pay(2))
    for _ in range(K + 4):
        await outbox.step()
        await mine(rpc)
    entry = await outbox.find("once")
    assert entry is not None
    assert (entry.state, entry.nonce) == (TransactionState.SIGNED, 0)
    return outbox


async def test_lagging_receipts_do_not_make_a_second_transaction(
    rpc: Rpc, payer: Key, faulty: FaultyTransport
) -> None:
    """Blocks and nonces are there, receipts are not: the nonce is used, but by us."""
    is_lagging = True

    def after(method: str, params: list[Any], answer: Any) -> Any:
        return None if is_lagging and method == "eth_getTransactionReceipt" else answer

    faulty.after = after
    outbox = await step_unseen(rpc, Rpc(faulty), payer)
    is_lagging = False
    await finish(outbox, rpc, "once")
    assert await received(rpc) == 2


async def test_blocks_of_two_chains_prove_no_nonce_taken(
    rpc: Rpc, payer: Key, faulty: FaultyTransport
) -> None:
    """A node behind a balancer hides our receipt and our block: still no second transaction."""
    is_lying = True

    def after(method: str, params: list[Any], answer: Any) -> Any:
        if not is_lying or answer is None:
            return answer
        if method == "eth_getTransactionReceipt":
            return None
        if method == "eth_getBlockByNumber" and params[0] != "latest" and answer["transactions"]:
            return {**answer, "hash": "0x" + "ee" * 32, "transactions": []}
        return answer

    faulty.after = after
    outbox = await step_unseen(rpc, Rpc(faulty), payer)
    is_lying = False
    await finish(outbox, rpc, "once")
    assert await received(rpc) == 2


async def test_a_chain_that_lost_its_end_gets_it_back(rpc: Rpc, payer: Key) -> None:
    """A confirmed transaction vanishes (restored node): the next one brings it back first."""
    snapshot = await rpc.request("evm_snapshot")
    outbox = make_outbox(rpc, payer, MemoryOutboxStorage())
    await outbox.enqueue("first", pay(10))
    await finish(outbox, rpc, "first")
    await rpc.request("evm_revert", snapshot)
    assert await received(rpc) == 0
    await outbox.enqueue("second", pay(1))
    await finish(outbox, rpc, "second")
    assert await received(rpc) == 11


async def test_a_nonce_that_nobody_holds_is_filled(rpc: Rpc, payer: Key) -> None:
    snapshot = await rpc.request("evm_snapshot")
    foreign = sign_transaction(payer, Transaction(CHAIN_ID, 0, 10**9, 10**11, 21_000, pay(50)))
    await rpc.send_raw(foreign.raw)

    async def is_mined() -> bool:
        return await received(rpc) == 50

    await poll(is_mined)  # the node answers before it mines
    clock = Clock()
    outbox = make_outbox(rpc, payer, MemoryOutboxStorage(), clock=clock)
    await outbox.enqueue("once", pay(1))
    await outbox.step()

    async def are_both_mined() -> bool:
        return await received(rpc) == 51

    await poll(are_both_mined)  # else ours would stay in the pool across the revert
    await rpc.request("evm_revert", snapshot)  # takes the foreign one with it
    await mine(rpc)
    await outbox.step()
    assert is_open(await outbox.find("once"))
    clock.now_s += 20
    done = await finish(outbox, rpc, "once")
    assert done.nonce == 1
    assert await received(rpc) == 1


async def test_what_would_revert_fails_with_its_reason_and_costs_nothing(
    rpc: Rpc, payer: Key
) -> None:
    outbox = make_outbox(rpc, payer, MemoryOutboxStorage())
    deploys_nothing = Call(to=None, data=reverting_code(b"closed"), label="open the door")
    with pytest.raises(ChainError, match="'open the door' failed: closed") as caught:
        await outbox.submit("once", deploys_nothing)
    assert caught.value.reason == "closed"
    head = await rpc.fetch_head()
    assert await rpc.fetch_transaction_count(payer.address, block=head.number) == 0


async def test_a_node_without_the_heads_state_fails_nothing(
    rpc: Rpc, payer: Key, faulty: FaultyTransport
) -> None:
    """One node names the head, another is asked for its state and lacks it (found by chaos)."""

    def before(method: str, params: list[Any]) -> None:
        if method == "eth_estimateGas":
            reason = "header not found"
            raise ChainError(f"the chain refused: {reason}", reason=reason)

    faulty.before = before
    outbox = make_outbox(Rpc(faulty), payer, MemoryOutboxStorage())
    await outbox.enqueue("once", pay(4))
    await outbox.step()
    entry = await outbox.find("once")
    assert entry is not None
    assert (entry.state, entry.reason) == (
        TransactionState.QUEUED,
        "the node lags: header not found",
    )
    faulty.before = lambda method, params: None
    assert (await finish(outbox, rpc, "once")).state is TransactionState.CONFIRMED


async def test_what_reverts_on_chain_fails_with_its_reason(rpc: Rpc, payer: Key) -> None:
    outbox = make_outbox(rpc, payer, MemoryOutboxStorage())
    call = Call(to=None, data=reverting_code(b"closed"), label="open", gas_limit=200_000)
    await outbox.enqueue("once", call)
    done = await finish(outbox, rpc, "once")
    assert done.state is TransactionState.FAILED
    assert done.reason == "closed"
    assert done.gas_used > 0
    # The nonce is spent; the next one is not held up.
    await outbox.enqueue("next", pay(1))
    assert (await finish(outbox, rpc, "next")).state is TransactionState.CONFIRMED


async def test_out_of_gas_says_so(rpc: Rpc, payer: Key) -> None:
    outbox = make_outbox(rpc, payer, MemoryOutboxStorage())
    spins = bytes.fromhex("5b600056")  # JUMPDEST, jump to 0
    await outbox.enqueue("once", Call(to=None, data=spins, gas_limit=100_000))
    assert "out of gas: all of 100000" in (await finish(outbox, rpc, "once")).reason


async def test_too_little_native_coin_names_both_amounts(rpc: Rpc) -> None:
    pauper = await make_funded_key(rpc, wei=1_000)
    outbox = make_outbox(rpc, pauper, MemoryOutboxStorage())
    await outbox.enqueue("once", Call(to=RECEIVER, data=b"", gas_limit=21_000))
    await outbox.step()
    entry = await outbox.find("once")
    assert entry is not None
    assert entry.state is TransactionState.FAILED
    assert "has 1000 wei" in entry.reason
    assert pauper.address in entry.reason


async def test_a_dead_node_is_waited_out(rpc: Rpc, payer: Key, faulty: FaultyTransport) -> None:
    is_dead = True

    def before(method: str, params: list[Any]) -> None:
        if is_dead:
            raise lose()

    faulty.before = before
    outbox = make_outbox(Rpc(faulty, retry_pause_s=0), payer, MemoryOutboxStorage())
    await outbox.enqueue("once", pay(3))
    with pytest.raises(TransientError):
        await outbox.step()
    running = asyncio.create_task(outbox.run(poll_interval_s=0.005))
    waiting = asyncio.create_task(outbox.wait_final("once", poll_interval_s=0.005))
    is_dead = False
    while not waiting.done():
        await mine(rpc)
    assert (await waiting).state is TransactionState.CONFIRMED
    running.cancel()
    assert await received(rpc) == 3


def reverting_code(reason: bytes) -> bytes:
    """Creation code that reverts with Error(reason): copies the data behind itself and reverts."""
    data = (
        bytes.fromhex("08c379a0")
        + (32).to_bytes(32, "big")
        + len(reason).to_bytes(32, "big")
        + reason.ljust(32, b"\0")
    )
    # PUSH1 size, PUSH1 12, PUSH1 0, CODECOPY, PUSH1 size, PUSH1 0, REVERT
    head = bytes([0x60, len(data), 0x60, 12, 0x60, 0, 0x39, 0x60, len(data), 0x60, 0, 0xFD])
    return head + data


async def test_above_its_own_cap_a_call_fails_unsent_and_holds_nothing_back(
    rpc: Rpc, payer: Key
) -> None:
    outbox = make_outbox(rpc, payer, MemoryOutboxStorage())
    await outbox.enqueue("dear", replace(pay(), fee_cap_wei=10))
    await outbox.enqueue("next", pay(7))
    await finish(outbox, rpc, "next")
    dear = await outbox.find("dear")
    assert dear is not None
    assert dear.state is TransactionState.FAILED
    assert "more than the 10 wei" in dear.reason
    assert dear.attempts == ()
    assert await received(rpc) == 7


async def test_a_signed_call_keeps_its_cap_for_a_while_then_goes_through(
    rpc: Rpc, payer: Key
) -> None:
    """A spike after the signing: nothing is overpaid at once, and nothing is stuck for ever."""
    clock = Clock()
    policy = FeePolicy(raise_after_s=60, tip_wei=10**9)
    outbox = make_outbox(rpc, payer, MemoryOutboxStorage(), clock=clock, fee_policy=policy)
    await rpc.request("evm_setAutomine", False)
    await rpc.request("anvil_setNextBlockBaseFeePerGas", hex(10**9))
    await mine(rpc)
    await outbox.enqueue("once", replace(pay(), fee_cap_wei=3 * 10**9))
    await outbox.step()
    for _ in range(14):
        # each block lets the base fee fall by an eighth; the spike goes on
        await rpc.request("anvil_setNextBlockBaseFeePerGas", hex(50 * 10**9))
        await mine(rpc)
        clock.now_s += 60
        await outbox.step()
        held = await outbox.find("once")
        assert held is not None
        assert held.state is TransactionState.SIGNED
        assert all(attempt.max_fee_wei <= 3 * 10**9 for attempt in held.attempts)
    clock.now_s += 120
    done = await finish(outbox, rpc, "once")
    assert done.attempts[-1].max_fee_wei > 50 * 10**9
    assert await received(rpc) == 1


async def test_a_cap_ends_by_the_chains_clock_where_no_process_lives_so_long(
    rpc: Rpc, payer: Key
) -> None:
    await rpc.request("evm_setAutomine", False)
    await rpc.request("anvil_setNextBlockBaseFeePerGas", hex(10**9))
    await mine(rpc)
    storage = MemoryOutboxStorage()
    policy = FeePolicy(tip_wei=10**9)
    dying = make_outbox(rpc, payer, storage, clock=Clock(), fee_policy=policy)
    await dying.enqueue("once", replace(pay(), fee_cap_wei=3 * 10**9))
    await dying.step()

    async def live_once(wait_s: int) -> OutboxEntry:
        await rpc.request("evm_increaseTime", wait_s)
        await rpc.request("anvil_setNextBlockBaseFeePerGas", hex(50 * 10**9))
        await mine(rpc)
        await make_outbox(rpc, payer, storage, clock=Clock(), fee_policy=policy).step()
        found = await storage.find_entry(dying.scope, "once")
        assert found is not None
        return found

    for _ in range(4):
        held = await live_once(200)
        assert held.state is TransactionState.SIGNED
        assert all(attempt.max_fee_wei <= 3 * 10**9 for attempt in held.attempts)
    assert (await live_once(150)).attempts[-1].max_fee_wei > 50 * 10**9
    done = await finish(make_outbox(rpc, payer, storage, clock=Clock()), rpc, "once")
    assert done.state is TransactionState.CONFIRMED
    assert await received(rpc) == 1


async def test_a_node_that_says_less_than_nothing_is_asked_again(
    rpc: Rpc, payer: Key, faulty: FaultyTransport
) -> None:
    def lie(method: str, params: list[Any], answer: Any) -> Any:
        return "-0x1" if method == "eth_maxPriorityFeePerGas" else answer

    faulty.after = lie
    with pytest.raises(TransientError, match="below 0"):
        await Rpc(faulty, retry_pause_s=0.001).fetch_priority_fee()
