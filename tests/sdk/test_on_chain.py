"""The whole of it: contracts on a real node, a real broker process, `Hanse.open`, and the money."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from hanse.chain import create_key
from hanse.engines import open_engine
from hanse.protocol.errors import HanseError, RequestError
from hanse.provider import BrokerKeys, BrokerProcess, Service
from hanse.sdk import CompletionStream, Hanse, HanseSync, Settings, verify_receipt_file
from tests.provider.chain_parts import PRICES, Market, run_market
from tests.waiting import until as until

pytestmark = pytest.mark.slow

MESSAGES = [{"role": "user", "content": "one two three"}]


async def start_broker(market: Market, folder: Path) -> BrokerProcess:
    settings = market.get_broker_settings(folder / "broker")
    services = [Service(1, open_engine("echo", {"answer_tokens": 8}), PRICES)]
    return await BrokerProcess.start(settings, BrokerKeys(market.receipt, market.owner), services)


async def test_a_user_pays_settles_refunds_and_every_unit_is_accounted_for(
    tmp_path: Path, anvil_cache: Path
) -> None:
    async with run_market(tmp_path / "chain", anvil_cache) as market:
        process = await start_broker(market, tmp_path)
        provider = market.owner.address
        wallet, settings = await market.make_wallet(5_000_000, tmp_path / "user.db")
        async with Hanse.open(settings) as hanse:
            with pytest.raises(RequestError) as caught:
                await hanse.account.deposit(6_000_000)
            assert caught.value.details["missing"] == "1000000"
            opened = await hanse.account.open(3_000_000, {provider: 2_000_000})
            await until(hanse.get_offers)
            (offer,) = hanse.get_offers()
            model = offer.listed.offer.model
            view = process.broker.parts.chain_view
            await until(lambda: view.find_funds(wallet.address, wallet.address))

            money = await hanse.read_money()
            amounts = {place.place: place.amount for place in money.places}
            assert amounts["wallet"] == 2_000_000
            assert amounts["account"] == 1_000_000
            assert amounts["free"] == 2_000_000
            assert money.total == 5_000_000
            assert money.differences == ()
            free = next(place for place in money.places if place.place == "free")
            assert free.transaction_hash == opened.transaction_hash

            spent = 0
            for _ in range(3):
                answer = await hanse.chat(model, MESSAGES, max_tokens=8)
                assert not isinstance(answer, CompletionStream)
                spent += answer.receipt.fee
            money = await hanse.read_money()
            amounts = {place.place: place.amount for place in money.places}
            assert amounts["accrued"] == spent > 0
            assert money.total == 5_000_000

            await process.settle_now()
            await until_paid(hanse, spent)
            money = await hanse.read_money()
            amounts = {place.place: place.amount for place in money.places}
            assert amounts["accrued"] == 0
            assert money.total == 5_000_000 - spent
            assert money.differences == ()

            await hanse.account.request_refund(provider, amounts["free"])
            money = await hanse.read_money()
            refund = next(place for place in money.places if place.place == "refund")
            assert refund.amount == amounts["free"]
            assert refund.unlock_time_s > time.time()
            with pytest.raises(RequestError) as caught:
                await hanse.chat(model, MESSAGES, max_tokens=8)
            assert caught.value.code == "insufficient_balance"
            with pytest.raises(HanseError, match=r"unlock|lock|refund"):
                await hanse.account.claim_refund(provider)
            await market.node.advance_time(3_700)
            await hanse.account.claim_refund(provider)
            await hanse.account.withdraw(3_000_000 - spent)
            money = await hanse.read_money()
            amounts = {place.place: place.amount for place in money.places}
            assert amounts["wallet"] == money.total == 5_000_000 - spent
            assert (money.paid, money.differences) == (spent, ())

            (newest, *_) = await hanse.get_receipts()
            file = tmp_path / "receipt.json"
            file.write_text(json.dumps(await hanse.export_receipt(newest.request_id or "")))
            assert verify_receipt_file(file).receipt == newest.signed
        await process.stop()


async def until_paid(hanse: Hanse, amount: int) -> None:
    ends = time.monotonic() + 20
    while (await hanse.read_money()).paid < amount:
        assert time.monotonic() < ends, "the settlement was not seen"
        await asyncio.sleep(0.05)


async def test_a_session_key_buys_with_the_wallet_offline_and_sync_works(
    tmp_path: Path, anvil_cache: Path
) -> None:
    async with run_market(tmp_path / "chain", anvil_cache) as market:
        process = await start_broker(market, tmp_path)
        user, session = await market.make_user(1_000_000, create_key())
        view = process.broker.parts.chain_view
        await until(lambda: view.find_funds(user.address, session.address))
        settings = Settings(
            market.url,
            market.deployment,
            tmp_path / "user.db",
            signer=session,
            user=user.address,
            discover_interval_s=0.2,
        )

        def use() -> None:
            with HanseSync(settings) as hanse:
                deadline = time.monotonic() + 20
                while not hanse.get_offers():
                    assert time.monotonic() < deadline
                    hanse.discover()
                model = hanse.get_offers()[0].listed.offer.model
                assert hanse.chat(model, MESSAGES, max_tokens=8).receipt.fee > 0
                assert "".join(hanse.stream_chat(model, MESSAGES, max_tokens=8))
                assert hanse.read_money().differences == ()
                with pytest.raises(RequestError, match="no wallet key"):
                    hanse.run(hanse.hanse.account.withdraw(1))

        await asyncio.to_thread(use)
        await process.stop()
