"""The scheduler on a real chain: what it sends when prices jump, nodes lie, and refunds unlock."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from hanse.chain import ChainError, Rpc
from hanse.chain.escrow import Escrow
from hanse.provider.chain_view import StaticChainView
from hanse.settlement.books.receipt_records import SubAccountFunds
from hanse.settlement.netting.gas import GasMarket, SettlementRules
from hanse.settlement.netting.plan import Reason
from hanse.settlement.netting.round_storage import (
    MemoryRoundStorage,
    RoundTimes,
    open_round_storage,
)
from hanse.settlement.netting.scheduler import REFUNDS_PER_ROUND_MAX, Scheduler
from hanse.store import open_sqlite
from tests.chain.chain_parts import FaultyTransport
from tests.settlement.test_settler import run_desk

pytestmark = pytest.mark.slow

GWEI = 10**9
SIGNER = "0x" + "c3" * 20
RULES = SettlementRules(native_price=2_500 * 10**6)


async def set_base_fee(desk: Any, wei: int) -> None:
    """The price that one gas has from the next block on; the test's blocks are nearly empty."""
    await desk.market.rpc.request("anvil_setNextBlockBaseFeePerGas", hex(wei))
    await desk.market.node.mine(1)


async def count_settlements(desk: Any) -> int:
    head = await desk.market.rpc.fetch_head()
    escrow = Escrow(desk.market.rpc, desk.market.deployment.escrow)
    logs = await desk.market.rpc.fetch_logs([escrow.address], first=1, last=head.number)
    events = [escrow.contract.find_event(log, 0) for log in logs]
    return sum(event is not None and event.name == "Settled" for event in events)


async def test_the_clock_is_kept_over_restarts(tmp_path):
    provider = "0x" + "b2" * 20
    database = await open_sqlite(tmp_path / "books.sqlite3")
    storage = await open_round_storage(database, provider)
    assert await storage.read() == RoundTimes()
    await storage.put(RoundTimes(5, 4))
    await storage.put(RoundTimes(7, 6))
    await database.close()
    database = await open_sqlite(tmp_path / "books.sqlite3")
    assert await (await open_round_storage(database, provider)).read() == RoundTimes(7, 6)
    other = await open_round_storage(database, "0x" + "b3" * 20)
    assert await other.read() == RoundTimes()
    await database.close()


async def test_a_day_after_something_began_to_wait_it_is_settled_once(tmp_path, anvil_cache):
    async with run_desk(tmp_path, anvil_cache) as desk:
        user, signer = await desk.market.make_user(10**6)
        shown: list[Any] = []
        desk.scheduler._show = lambda plan, times: shown.append((plan, times))
        assert await desk.scheduler.look() == []
        assert shown[-1][0].reason is Reason.NOTHING
        await desk.sell(user, signer, 500)
        assert await desk.scheduler.look() == []
        assert (shown[-1][0].reason, shown[-1][0].value) == (Reason.NOT_YET, 500)
        await desk.market.node.advance_time(86_400)
        await desk.market.node.mine(1)
        (batch,) = await desk.scheduler.look()
        assert batch.paid == 500
        plan, times = shown[-1]
        assert (plan.reason, plan.overdue_s, times.waiting_since_s) == (Reason.NOTHING, 0, 0)
        assert times.last_settled_s > 0
        await desk.sell(user, signer, 600)
        assert await desk.scheduler.look() == [], "the next day begins with the next claim"


async def test_a_settlement_names_the_records_head_that_it_is_given(tmp_path, anvil_cache):
    async with run_desk(tmp_path, anvil_cache) as desk:

        async def read_head() -> bytes:
            return b"\x5a" * 32

        desk.scheduler.settler.records_head = read_head
        user, signer = await desk.market.make_user(10**6)
        await desk.sell(user, signer, 500)
        (batch,) = await desk.scheduler.settle(asked=True)
        receipt = await desk.market.rpc.fetch_receipt(batch.transaction_hash)
        assert receipt is not None
        escrow = desk.market.escrow
        (event,) = [
            found
            for log in receipt.logs
            if (found := escrow.contract.find_event(log, 0)) and found.name == "Settled"
        ]
        assert event.fields["records_head"] == b"\x5a" * 32


async def test_dust_under_refunds_costs_a_broker_nothing_and_a_spike_only_delays(
    tmp_path, anvil_cache
):
    async with run_desk(tmp_path, anvil_cache, RULES) as desk:
        market, provider = desk.market, desk.market.owner.address
        attacker, attacker_signer = await market.make_user(1_000)
        user, signer = await market.make_user(10**9)
        await desk.sell(attacker, attacker_signer, 1)
        await desk.sell(user, signer, 10**8)  # 100 whole units
        for who, key, amount in ((attacker, attacker_signer, 1_000), (user, signer, 10**9)):
            await market.do(who, market.escrow.request_refund(provider, key.address, amount))
            await desk.see(who, key, pending_refund=amount)

        await set_base_fee(desk, 2_000 * GWEI)  # 365 whole units for one settlement
        spike = replace(await desk.scheduler._fetch_market(), gas_price_wei=2_000 * GWEI)
        calm = desk.scheduler._fetch_market

        async def fetch_spike() -> Any:
            return spike

        desk.scheduler._fetch_market = fetch_spike
        assert await desk.scheduler.look() == []
        assert await desk.scheduler.settle(asked=True) == [], "nor on demand"
        assert (await desk.scheduler.make_plan()).reason is Reason.GAS

        desk.scheduler._fetch_market = calm
        await set_base_fee(desk, GWEI // 100)
        (batch,) = await desk.scheduler.look()
        assert [(c.user, c.status_name) for c in batch.claims] == [(user.address, "paid")]
        assert await desk.scheduler.look() == []

        # unlocked: the user's refund is completed, the attacker's is the attacker's own affair
        await market.node.advance_time(3_700)
        await market.node.mine(1)
        assert await desk.scheduler.complete_due_refunds() == 1
        await desk.see(user, signer, balance=0, pending_refund=0)
        await desk.see(attacker, attacker_signer, balance=1_000, pending_refund=1_000)
        assert await count_settlements(desk) == 1


async def test_a_price_that_jumps_after_the_plan_is_not_paid(tmp_path, anvil_cache):
    """The node names a low price to the plan and the true one to the outbox."""
    async with run_desk(tmp_path, anvil_cache, RULES) as desk:
        user, signer = await desk.market.make_user(10**9)
        await desk.sell(user, signer, 10**8)
        await set_base_fee(desk, 500 * GWEI)
        head = await desk.market.rpc.fetch_head()
        honest = desk.scheduler._fetch_market

        async def lie() -> Any:
            return replace(await honest(), gas_price_wei=1)

        desk.scheduler._fetch_market = lie
        wei = await desk.market.rpc.fetch_balance(desk.market.receipt.address, block=head.number)
        with pytest.raises(ChainError, match="one gas costs more than"):
            await desk.scheduler.settle(asked=True)
        desk.scheduler._fetch_market = honest
        await set_base_fee(desk, GWEI // 100)
        (batch,) = await desk.scheduler.settle(asked=True)
        assert batch.paid == 10**8, "nothing was lost by waiting"
        head = await desk.market.rpc.fetch_head()
        left = await desk.market.rpc.fetch_balance(desk.market.receipt.address, block=head.number)
        spent = (wei - left) * RULES.native_price // 10**18
        assert 0 < spent <= 10**6, "1 % of what was settled"


async def test_completing_a_refund_is_not_paid_above_the_rule_either(tmp_path, anvil_cache):
    async with run_desk(tmp_path, anvil_cache, RULES) as desk:
        market, provider = desk.market, desk.market.owner.address
        user, signer = await market.make_user(10**9)
        refund = market.escrow.request_refund(provider, signer.address, 10**9)
        await market.do(user, refund)
        await desk.see(user, signer, pending_refund=10**9)
        await market.node.advance_time(3_700)
        await set_base_fee(desk, 400 * GWEI)  # 70 whole units; 10 are the rule's 1 %
        honest = desk.scheduler._fetch_market

        async def lie() -> Any:
            return replace(await honest(), gas_price_wei=1)

        desk.scheduler._fetch_market = lie
        head = await market.rpc.fetch_head()
        wei = await market.rpc.fetch_balance(market.receipt.address, block=head.number)
        assert await desk.scheduler.complete_due_refunds() == 0
        head = await market.rpc.fetch_head()
        assert wei == await market.rpc.fetch_balance(market.receipt.address, block=head.number)
        await set_base_fee(desk, GWEI // 100)
        assert await desk.scheduler.complete_due_refunds() == 1


async def test_refunds_of_a_round_take_one_confirmations_time_together():
    """One after another, ten took ten: longer than the margin before the next unlocks."""
    view = StaticChainView()
    for number in range(REFUNDS_PER_ROUND_MAX):
        view.set_funds(f"0x{number:040x}", SIGNER, SubAccountFunds(9, 0, 0, 9, 1))
    together = asyncio.Barrier(REFUNDS_PER_ROUND_MAX)

    class AllAtOnce:
        def __init__(self) -> None:
            self.view = view

        async def finish_open(self) -> None:
            pass

        async def read_payable(self) -> list[Any]:
            return []

        async def complete_refund(self, *one: Any) -> bool:
            async with asyncio.timeout(20):
                await together.wait()
            return True

    async def fetch_market() -> GasMarket:
        return GasMarket(1, 0, 100)

    desk: Any = AllAtOnce()
    scheduler = Scheduler(desk, SettlementRules(), fetch_market, MemoryRoundStorage())
    assert await scheduler.complete_due_refunds() == REFUNDS_PER_ROUND_MAX


async def test_a_node_that_names_an_absurd_price_delays_and_sets_off_the_alarm(
    tmp_path, anvil_cache
):
    async with run_desk(tmp_path, anvil_cache, RULES) as desk:
        transport = FaultyTransport(desk.market.url)
        lies = {"eth_maxPriorityFeePerGas": hex(10**18)}
        transport.after = lambda method, params, answer: lies.get(method, answer)
        honest = desk.scheduler._fetch_market
        from hanse.settlement.netting.scheduler import fetch_gas_market

        desk.scheduler._fetch_market = lambda: fetch_gas_market(Rpc(transport))
        user, signer = await desk.market.make_user(10**9)
        await desk.sell(user, signer, 10**8)
        assert await desk.scheduler.look() == []
        await desk.market.node.advance_time(86_400 + 3_700)
        await desk.market.node.mine(1)
        assert await desk.scheduler.look() == []
        plan = await desk.scheduler.make_plan()
        assert (plan.reason, plan.market.gas_price_wei >= 10**18) == (Reason.GAS, True)
        assert plan.overdue_s > 0
        desk.scheduler._fetch_market = honest
        await set_base_fee(desk, GWEI // 100)
        assert [batch.paid for batch in await desk.scheduler.look()] == [10**8]
        await transport.close()


async def test_a_tight_block_makes_several_transactions(tmp_path, anvil_cache):
    async with run_desk(tmp_path, anvil_cache) as desk:
        for number in range(3):
            user, signer = await desk.market.make_user(1_000)
            await desk.sell(user, signer, 100 + number)
        honest = desk.scheduler._fetch_market

        async def tight() -> Any:
            return replace(await honest(), block_gas_limit=220_000)

        desk.scheduler._fetch_market = tight
        batches = await desk.scheduler.settle(asked=True)
        assert [[c.paid for c in batch.claims] for batch in batches] == [[102, 101], [100]]
