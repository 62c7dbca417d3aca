"""The whole process beside a real chain: registers, sells, settles, refunds, restarts."""

import asyncio
import json
import shutil

import pytest

from hanse.chain.registry import Registry
from hanse.engines import open_engine
from hanse.engines.echo_engine import Fault
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import RequestError
from hanse.protocol.messages import FinishReason
from hanse.protocol.verify import verify_offer
from hanse.protocol.wire import offer_from_json
from hanse.provider import BrokerKeys, BrokerProcess, Service
from tests.provider.broker_parts import Caller, chat_body, until
from tests.provider.chain_parts import PRICES, run_market

pytestmark = pytest.mark.slow


def services_of(prices=PRICES):
    return [Service(1, open_engine("echo", {"answer_tokens": 8}), prices)]


async def start(market, folder, *, owner=True, prices=PRICES, **options) -> BrokerProcess:
    keys = BrokerKeys(market.receipt, market.owner if owner else None)
    return await BrokerProcess.start(
        market.get_broker_settings(folder / "broker", **options), keys, services_of(prices)
    )


def caller_of(market, process, user, signer) -> Caller:
    offer = process.broker.parts.offers.list_current()[0].signed.offer
    d = market.deployment
    return Caller(
        process.url,
        offer,
        signer,
        user.address,
        domain=Domain(d.chain_id, d.escrow),
        provider=market.owner.address,
        receipt_key=market.receipt.address,
    )


async def test_registers_sells_settles_and_refunds(tmp_path, anvil_cache):
    async with run_market(tmp_path / "chain", anvil_cache) as market:
        process = await start(market, tmp_path)
        user, signer = await market.make_user(10**6)
        head = await market.rpc.fetch_head()
        await until(lambda: process.broker.parts.chain_view.block >= head.number - 2)

        async with caller_of(market, process, user, signer) as caller:
            # the offer is signed by the registered key, and what the Registry shows
            offers = json.loads((await caller.get("/hanse/v1/offers")).body)["offers"]
            signed = offer_from_json(offers[0])
            verify_offer(
                signed, caller.domain, market.receipt.address, signed.offer.valid_until - 1
            )
            registry = Registry(market.rpc, market.deployment.registry)
            listed = await registry.read_service(market.owner.address, 1, block=head.number)
            assert listed.offer_hash == "0x" + signed.offer.struct_hash().hex()

            fees = [(await caller.buy(stream=i % 2 == 0)).receipt.receipt.fee for i in range(4)]
            before = await market.read_asset(market.owner.address)
            (batch,) = await process.settle_now()
            assert batch.paid == sum(fees)
            assert [claim.status_name for claim in batch.claims] == ["paid"]
            assert await market.read_asset(market.owner.address) == before + sum(fees)
            sub = await market.read_sub_account(user, signer)
            assert (sub.claimed, sub.sequence) == (sum(fees), 4)
            assert sub.balance == 10**6 - sum(fees)
            assert await process.settle_now() == []

            # a refund: what is owed is settled first, then the broker completes it
            fee = (await caller.buy()).receipt.receipt.fee
            call = market.escrow.request_refund(
                market.owner.address, signer.address, 10**6 - sum(fees)
            )
            await market.do(user, call)
            view = process.broker.parts.chain_view
            await until(lambda: view.find_funds(user.address, signer.address).pending_refund, 10)
            refused = await caller.send(caller.sign())
            assert refused.error["code"] == "insufficient_balance"
            assert await process.complete_due_refunds() == 0
            await market.node.advance_time(3_601)
            await market.node.mine(1)
            assert await process.complete_due_refunds() == 1
            sub = await market.read_sub_account(user, signer)
            assert (sub.balance, sub.claimed) == (0, sum(fees) + fee)
            head = await market.rpc.fetch_head()
            free = await market.escrow.read_account(user.address, block=head.number)
            assert free + sub.claimed == 10**6
        await process.stop()


async def test_restart_keeps_registration_offer_and_books(tmp_path, anvil_cache):
    async with run_market(tmp_path / "chain", anvil_cache) as market:
        with pytest.raises(RequestError, match="is not registered"):
            await start(market, tmp_path, owner=False)
        process = await start(market, tmp_path, endpoints=("http://broker.test",))
        user, signer = await market.make_user(10**6)
        await until(
            lambda: process.broker.parts.chain_view.find_funds(user.address, signer.address)
        )
        offer_hash = process.broker.parts.offers.list_current()[0].offer_hash
        with pytest.raises(RequestError, match="another broker runs with"):
            await start(market, tmp_path, owner=False)
        async with caller_of(market, process, user, signer) as caller:
            first = await caller.buy()
        await process.stop()

        process = await start(market, tmp_path, owner=False, endpoints=("http://broker.test",))
        assert process.broker.parts.offers.list_current()[0].offer_hash == offer_hash
        async with caller_of(market, process, user, signer) as caller:
            _, receipts = await caller.fetch_receipts()
            assert receipts == [first.receipt]
            caller.acknowledge(first.receipt)
            await caller.buy()
            batches = await process.settle_now()
            assert sum(batch.paid for batch in batches) > first.receipt.receipt.fee
        await process.stop()

        dearer = type(PRICES)(200_000, 50_000, 300_000)
        process = await start(
            market, tmp_path, owner=False, prices=dearer, endpoints=("http://broker.test",)
        )
        current = process.broker.parts.offers.list_current()[0]
        assert current.offer_hash != offer_hash
        assert current.signed.offer.revision == 2
        await process.stop()


async def test_stop_drains_and_settles_if_asked(tmp_path, anvil_cache):
    async with run_market(tmp_path / "chain", anvil_cache) as market:
        process = await start(market, tmp_path, settle_on_stop=True)
        user, signer = await market.make_user(10**6)
        await until(
            lambda: process.broker.parts.chain_view.find_funds(user.address, signer.address)
        )
        async with caller_of(market, process, user, signer) as caller:
            engine = process.broker.parts.offers.list_current()[0].service.engine
            engine._settings = type(engine._settings)(token_delay_s=0.05)
            running = asyncio.create_task(caller.send(caller.sign(chat_body(stream=True))))
            await until(lambda: process.broker.in_flight == 1)
            stopping = asyncio.create_task(process.stop())
            reply = await running
            assert reply.ended
            await stopping
        sub = await market.read_sub_account(user, signer)
        assert sub.claimed == reply.receipt.receipt.fee > 0


async def test_stop_receipts_what_outlasts_the_draining(tmp_path, anvil_cache):
    async with run_market(tmp_path / "chain", anvil_cache) as market:
        process = await start(market, tmp_path, drain_time_s=0.1)
        user, signer = await market.make_user(10**6)
        await until(
            lambda: process.broker.parts.chain_view.find_funds(user.address, signer.address)
        )
        async with caller_of(market, process, user, signer) as caller:
            engine = process.broker.parts.offers.list_current()[0].service.engine
            engine.fault = Fault(kind="hang", after_tokens=2)
            running = asyncio.create_task(caller.send(caller.sign(chat_body(stream=True))))
            await until(lambda: process.broker.in_flight == 1)
            await process.stop()
            reply = await running
            assert not reply.ended
        process = await start(market, tmp_path)
        async with caller_of(market, process, user, signer) as caller:
            _, receipts = await caller.fetch_receipts()
        receipt = receipts[0].receipt
        assert receipt.finish_reason is FinishReason.CANCELLED
        assert receipt.usage.output_tokens == 2
        assert receipt.fee > 0
        await process.stop()


@pytest.mark.parametrize("is_settled", [True, False], ids=["settled since", "only marked"])
async def test_an_older_copy_of_the_database_does_not_start(tmp_path, anvil_cache, is_settled):
    """Yesterday's backup would number requests again; the chain or the mark tells."""
    async with run_market(tmp_path / "chain", anvil_cache) as market:
        process = await start(market, tmp_path, settle_on_stop=False)
        user, signer = await market.make_user(10**6)
        view = process.broker.parts.chain_view
        await until(lambda: view.find_funds(user.address, signer.address))
        async with caller_of(market, process, user, signer) as caller:
            first = await caller.buy()
        await process.stop()
        books = tmp_path / "broker" / "broker.sqlite3"
        shutil.copy(books, tmp_path / "yesterday.sqlite3")

        process = await start(market, tmp_path, settle_on_stop=False)
        async with caller_of(market, process, user, signer) as caller:
            caller.acknowledge(first.receipt)
            await caller.buy()
        if is_settled:
            # not before the view has come to the offer that this start published
            view, head = process.broker.parts.chain_view, await market.rpc.fetch_head()
            await until(lambda: view.block >= head.number - 2)
            await process.settle_now()
        await process.stop()

        today = tmp_path / "today"
        (tmp_path / "broker").rename(today)
        (tmp_path / "broker").mkdir()
        shutil.copy(tmp_path / "yesterday.sqlite3", books)
        if not is_settled:  # the folder stays, as it does where the database is a server
            shutil.copy(today / "receipts.mark", tmp_path / "broker" / "receipts.mark")
        with pytest.raises(RequestError) as caught:
            await start(market, tmp_path)
        assert caught.value.code == "configuration_invalid"
        said = "over 2 requests, the book holds" if is_settled else "2 receipts were signed"
        assert said in caught.value.message
        assert "Restore the newest copy" in caught.value.message

        shutil.rmtree(tmp_path / "broker")
        today.rename(tmp_path / "broker")
        process = await start(market, tmp_path)
        await process.stop()
