"""Settlement on a real chain: packing, partial payment, wrong claims, refunds, nobody's help."""

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from hanse.chain import EventIndex, Key, Outbox, create_key
from hanse.chain.asset import Asset
from hanse.chain.registry import Registry
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import TransientError
from hanse.protocol.intents import Fund
from hanse.protocol.limits import CLAIMS_PER_SETTLEMENT_MAX
from hanse.protocol.messages import Request, SignedVoucher, Voucher
from hanse.protocol.signatures import to_hex
from hanse.provider import IndexedChainView, StaticChainView
from hanse.settlement import ReceiptBook, SubAccountFunds, open_receipt_book
from hanse.settlement.chain_state.index_storage import open_index_storage
from hanse.settlement.chain_state.outbox_storage import open_outbox_storage
from hanse.settlement.chain_state.sub_account_fold import create_provider_fold
from hanse.settlement.netting.gas import SettlementRules
from hanse.settlement.netting.plan import Reason
from hanse.settlement.netting.round_storage import open_round_storage
from hanse.settlement.netting.scheduler import Scheduler, fetch_gas_market
from hanse.settlement.netting.settler import Settler
from hanse.store import open_sqlite
from tests.provider.broker_parts import until
from tests.provider.chain_parts import STAKE, Market, run_market
from tests.settlement.book_parts import admit_voucher, outcome_of

pytestmark = pytest.mark.slow


@dataclass
class Desk:
    """A provider's book and settler on a market, without the HTTP in front."""

    market: Market
    domain: Domain
    book: ReceiptBook
    view: IndexedChainView
    scheduler: Scheduler
    database: Any
    count: int = 0

    async def sell(self, user: Key, signer: Key, fee: int, *, key: Key | None = None) -> None:
        """One finished request; `key` signs instead of the signer."""
        provider = self.market.owner.address
        state = await self.book.find_state(user.address, signer.address)
        done, spent = (state.book.sequence, state.book.cumulative_fee) if state else (0, 0)
        self.count += 1
        request = Request(
            "0x" + "0f" * 32, "0x" + "0b" * 32, fee, to_hex(self.count.to_bytes(32, "big")), 2**33
        )
        voucher = Voucher(
            user.address, provider, spent + fee, done + 1, to_hex(request.struct_hash())
        )
        digest = self.domain.digest(voucher.struct_hash())
        signed = SignedVoucher(
            voucher, request, signer.address, (key or signer).sign_digest(digest)
        )
        await until(lambda: self.view.find_funds(user.address, signer.address))
        funds = self.view.find_funds(user.address, signer.address)
        admission = await admit_voucher(
            self.book, signed, funds, acknowledged=0, now_s=int(time.time())
        )
        await self.book.finish(admission, outcome_of(fee))

    async def see(self, user: Key, signer: Key, **expected: int) -> None:
        """Wait until the view shows this of a sub-account."""

        def shows() -> bool:
            funds = self.view.find_funds(user.address, signer.address)
            return funds is not None and all(getattr(funds, k) == v for k, v in expected.items())

        await until(shows)


@contextlib.asynccontextmanager
async def run_desk(tmp_path, anvil_cache, rules=None, gas_rpc=None):
    async with run_market(tmp_path / "chain", anvil_cache) as market:
        d = market.deployment
        registry = Registry(market.rpc, d.registry)
        await market.do(
            market.owner,
            Asset(market.rpc, d.asset).approve(d.registry, STAKE),
            registry.register(STAKE, market.receipt.address, market.owner.address),
        )
        database = await open_sqlite(tmp_path / "broker.sqlite3")
        domain = Domain(d.chain_id, d.escrow)
        provider = market.owner.address
        book = await open_receipt_book(database, provider, domain, market.receipt)
        view = IndexedChainView(None, time.monotonic)
        storage = await open_index_storage(
            database, "broker", create_provider_fold(provider), view.on_change
        )
        index = EventIndex(
            market.rpc,
            [market.escrow.contract],
            storage,
            start_block=d.start_block,
            confirmations=d.confirmations,
        )
        outbox_storage = await open_outbox_storage(database)
        outbox = Outbox(
            market.rpc,
            market.receipt,
            outbox_storage,
            chain_id=d.chain_id,
            confirmations=d.confirmations,
        )
        settler = Settler(book, market.escrow, outbox, outbox_storage, provider, view)
        scheduler = Scheduler(
            settler,
            rules or SettlementRules(),
            lambda: fetch_gas_market(gas_rpc or market.rpc),
            await open_round_storage(database, provider),
        )
        reading = asyncio.create_task(index.run(poll_interval_s=0.05))
        try:
            yield Desk(market, domain, book, view, scheduler, database)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await database.close()


async def test_more_than_one_batch_is_packed_largest_first(tmp_path, anvil_cache):
    count = CLAIMS_PER_SETTLEMENT_MAX + 3
    async with run_desk(tmp_path, anvil_cache) as desk:
        market, provider = desk.market, desk.market.owner.address
        user, signers = await market.make_key(), [create_key() for _ in range(count)]
        asset = Asset(market.rpc, market.deployment.asset)
        funds = [Fund(provider, signer.address, 1_000) for signer in signers]
        pages = [funds[i : i + 20] for i in range(0, count, 20)]
        await market.do(
            user,
            asset.mint(user.address, count * 1_000),
            asset.approve(market.deployment.escrow, count * 1_000),
            *(market.escrow.open(len(page) * 1_000, page) for page in pages),
        )
        fees = [10 + number for number in range(count)]
        for signer, fee in zip(signers, fees, strict=True):
            await desk.sell(user, signer, fee)
        batches = await desk.scheduler.settle(asked=True)
        assert [len(batch.claims) for batch in batches] == [CLAIMS_PER_SETTLEMENT_MAX, 3]
        assert sum(batch.paid for batch in batches) == sum(fees)
        assert batches[1].paid == sum(sorted(fees)[:3])
        assert {claim.status_name for batch in batches for claim in batch.claims} == {"paid"}
        assert await desk.book.read_due_claims() == []
        assert await market.read_asset(provider) == sum(fees)


async def test_refund_that_came_first_leaves_a_partial_claim_for_later(tmp_path, anvil_cache):
    async with run_desk(tmp_path, anvil_cache) as desk:
        market, provider = desk.market, desk.market.owner.address
        user, signer = await market.make_user(1_000)
        await desk.sell(user, signer, 600)
        # the provider is gone for longer than the lock time; the user takes out what it can
        await market.do(user, market.escrow.request_refund(provider, signer.address, 900))
        await market.node.advance_time(3_601)
        await market.do(user, market.escrow.claim_refund(user.address, provider, signer.address))
        await desk.see(user, signer, balance=100)
        (batch,) = await desk.scheduler.settle(asked=True)
        assert (batch.paid, batch.claims[0].status_name) == (100, "partial")
        assert await desk.scheduler.settle(asked=True) == []  # nothing there: nothing is sent
        (claim,) = await desk.book.read_due_claims()
        assert claim.due == 500
        # the same voucher claims the rest once there is something again
        await market.do(user, market.escrow.fund(provider, signer.address, 700))
        await desk.see(user, signer, balance=700)
        (batch,) = await desk.scheduler.settle(asked=True)
        assert (batch.paid, batch.claims[0].status_name) == (500, "paid")
        await desk.see(user, signer, balance=200, claimed=600)


async def test_wrong_claim_spoils_no_other_and_is_not_tried_again(tmp_path, anvil_cache):
    async with run_desk(tmp_path, anvil_cache) as desk:
        user, signer = await desk.market.make_user(1_000)
        other, other_signer = await desk.market.make_user(1_000)
        await desk.sell(user, signer, 50, key=create_key())  # as if the book were damaged
        await desk.sell(other, other_signer, 70)
        (batch,) = await desk.scheduler.settle(asked=True)
        assert {(claim.status_name, claim.paid) for claim in batch.claims} == {
            ("bad signature", 0),
            ("paid", 70),
        }
        assert await desk.scheduler.settle(asked=True) == []


async def test_nothing_is_sent_below_the_minimum(tmp_path, anvil_cache):
    async with run_desk(tmp_path, anvil_cache) as desk:
        user, signer = await desk.market.make_user(1_000)
        await desk.sell(user, signer, 50)
        assert await desk.scheduler.settle() == []  # from now on something waits
        await desk.market.node.advance_time(86_500)
        await desk.market.node.mine(1)
        desk.scheduler.rules = SettlementRules(value_min=51)
        assert await desk.scheduler.settle() == []
        assert (await desk.scheduler.make_plan()).reason is Reason.MINIMUM
        desk.scheduler.rules = SettlementRules(value_min=50)
        (batch,) = await desk.scheduler.settle()
        assert batch.paid == 50


async def test_what_is_owed_is_settled_before_a_due_refund_completes(tmp_path, anvil_cache):
    async with run_desk(tmp_path, anvil_cache) as desk:
        market, provider = desk.market, desk.market.owner.address
        user, signer = await market.make_user(1_000)
        await desk.sell(user, signer, 400)
        assert (await desk.scheduler.make_plan()).reason is Reason.NOT_YET
        await market.do(user, market.escrow.request_refund(provider, signer.address, 1_000))
        await desk.see(user, signer, pending_refund=1_000)
        plan = await desk.scheduler.make_plan()
        assert (plan.reason, plan.planned_value) == (Reason.REFUND, 400)
        desk.scheduler.rules = SettlementRules(refund_margin_s=60)
        assert (await desk.scheduler.make_plan()).reason is Reason.NOT_YET
        assert await desk.scheduler.complete_due_refunds() == 0
        await market.node.advance_time(3_601)
        await market.node.mine(1)
        assert await desk.scheduler.complete_due_refunds() == 1
        await desk.see(user, signer, balance=0, claimed=400, pending_refund=0)
        head = await market.rpc.fetch_head()
        assert await market.escrow.read_account(user.address, block=head.number) == 600
        assert await desk.scheduler.complete_due_refunds() == 0


async def test_after_a_restart_a_view_behind_the_last_settlement_is_waited_for(
    tmp_path, anvil_cache
):
    """A process that died after its settlement was confirmed claimed it once more (chaos)."""
    async with run_desk(tmp_path, anvil_cache) as desk:
        market, provider = desk.market, desk.market.owner.address
        user, signer = await market.make_user(1_000)
        before, block = desk.view.find_funds(user.address, signer.address), desk.view.block
        await desk.sell(user, signer, 400)
        (batch,) = await desk.scheduler.settle(asked=True)
        behind = StaticChainView(block)
        behind.set_funds(user.address, signer.address, before)
        old = desk.scheduler.settler
        parts = (desk.book, market.escrow, old._outbox, old._storage, provider, behind)
        settler = Settler(*parts, view_wait_s=0.3)
        await settler.finish_open()
        with pytest.raises(TransientError, match="the node lags"):
            await settler.read_payable()
        behind.block = batch.block_number
        behind.set_funds(user.address, signer.address, SubAccountFunds(600, 400, 1))
        assert await settler.read_payable() == []


async def test_view_is_what_the_contract_says(tmp_path, anvil_cache):
    """The fold beside the contract, over a life with everything in it."""
    async with run_desk(tmp_path, anvil_cache) as desk:
        market, provider = desk.market, desk.market.owner.address
        user, signer = await market.make_user(1_000)
        escrow = market.escrow

        async def agree() -> None:
            async def same() -> bool:
                found = await market.read_sub_account(user, signer)
                funds = desk.view.find_funds(user.address, signer.address)
                return funds is not None and msgspec.structs.astuple(funds) == (
                    found.balance,
                    found.claimed,
                    found.sequence,
                    found.refund,
                    found.unlock_time_s,
                )

            await until(same)

        await agree()
        await market.do(user, escrow.request_refund(provider, signer.address, 300))
        await agree()
        await market.do(user, escrow.request_refund(provider, signer.address, 400))
        await agree()
        await desk.sell(user, signer, 200)
        await desk.scheduler.settle(asked=True)
        await agree()
        await market.do(
            user,
            Asset(market.rpc, market.deployment.asset).mint(user.address, 500),
            Asset(market.rpc, market.deployment.asset).approve(market.deployment.escrow, 500),
            escrow.deposit(500),
            escrow.fund(provider, signer.address, 800),
        )
        await agree()
        await market.do(user, escrow.request_refund(provider, signer.address, 100))
        await agree()
        await market.do(user, escrow.cancel_refund(provider, signer.address))
        await agree()
