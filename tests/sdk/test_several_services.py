"""One broker, one engine, two services at two prices; and the money of both sides in words."""

from pathlib import Path

import aiohttp
import pytest

from hanse.chain.registry import Registry
from hanse.engines import Operation, open_engine
from hanse.protocol.errors import RequestError
from hanse.protocol.messages import Prices
from hanse.protocol.signatures import ZERO_ADDRESS, ZERO_HASH
from hanse.provider import BrokerKeys, BrokerProcess, Service, build_offer
from hanse.sdk import CompletionStream, Hanse
from hanse.settlement.money.places import REFUND_GRACE_S, sum_by_place
from tests.provider.chain_parts import PRICES, STAKE, Market, run_market
from tests.sdk.test_on_chain import MESSAGES, until

pytestmark = pytest.mark.slow

VECTORS = Prices(7_000_000, 7_000_000, 0)
CHAT = frozenset({Operation.CHAT, Operation.COMPLETION})


async def start_broker(market: Market, folder: Path) -> BrokerProcess:
    settings = market.get_broker_settings(folder / "lubeck", maintenance_interval_s=3_600)
    engine = open_engine("echo", {"answer_tokens": 8})
    services = [
        Service(1, engine, PRICES, only=CHAT),
        Service(2, engine, VECTORS, only=frozenset({Operation.EMBEDDINGS})),
    ]
    return await BrokerProcess.start(settings, BrokerKeys(market.receipt, market.owner), services)


async def test_chat_and_vectors_of_one_engine_at_two_prices(
    tmp_path: Path, anvil_cache: Path
) -> None:
    async with run_market(tmp_path / "chain", anvil_cache) as market:
        process = await start_broker(market, tmp_path)
        provider = market.owner.address
        registry = Registry(market.rpc, market.deployment.registry)
        block = (await market.rpc.fetch_head()).number
        for service_id in (1, 2):
            assert (await registry.read_service(provider, service_id, block=block)).active
        wallet, settings = await market.make_wallet(5_000_000, tmp_path / "user.db")
        async with Hanse.open(settings) as hanse:
            opened = await hanse.account.open(3_000_000, {provider: 2_000_000})
            await until(lambda: len(hanse.get_offers()) == 2)
            listed = {
                seen.listed.offer.service_type: seen.listed.offer for seen in hanse.get_offers()
            }
            assert listed["chat"].prices == PRICES
            assert listed["embeddings"].prices == VECTORS
            model = listed["chat"].model
            assert [row["owned_by"] for row in hanse.get_models()["data"]] == ["1 provider"]
            view = process.broker.parts.chain_view
            await until(lambda: view.find_funds(wallet.address, wallet.address))

            answer = await hanse.chat(model, MESSAGES, max_tokens=8)
            vectors = await hanse.embeddings(model, ["one two", "three"])
            assert not isinstance(answer, CompletionStream)
            assert len(vectors.data["data"]) == 2
            usage = vectors.receipt.usage
            assert vectors.receipt.fee == VECTORS.get_fee(usage) > 0
            assert answer.receipt.fee == PRICES.get_fee(answer.receipt.usage)
            earned = answer.receipt.fee + vectors.receipt.fee

            money = await process.read_money()
            sums = sum_by_place(money.places)
            assert (money.facts.earned, money.settled, sums["claimable"]) == (earned, 0, earned)
            assert sums["stake"] == STAKE
            (claimable,) = [p for p in money.places if p.place == "claimable"]
            assert claimable.command == "hanse settle --name lubeck"
            assert money.alarms == ()

            mine = await hanse.read_money()
            places = {place.place: place for place in mine.places}
            assert [o.event for o in places["wallet"].origins] == ["Received"]
            (minted,) = [e for e in mine.transfers if e.name == "Received"]
            assert places["wallet"].transaction_hash == minted.transaction_hash
            assert places["account"].transaction_hash == opened.transaction_hash
            assert (mine.symbol, mine.decimals) == (money.symbol, money.decimals)

            # a refund that nobody completes is an alarm on both sides, until somebody does
            await process.settle_now()
            free = places["free"].amount
            await hanse.account.request_refund(provider, free)
            await market.node.advance_time(3_600 + REFUND_GRACE_S + 60)
            await market.node.mine(4)
            await until(lambda: view.list_funds()[0][2].pending_refund == free)
            money = await process.read_money()
            assert sum_by_place(money.places)["claimable"] == 0
            assert money.settled == earned
            assert [alarm.code for alarm in money.alarms] == ["refund_overdue"]
            assert await read_health(process) == ["refund_overdue"]
            assert [alarm.code for alarm in (await hanse.read_money()).alarms] == ["refund_overdue"]
            await hanse.account.claim_refund(provider)
            await until(lambda: view.list_funds()[0][2].pending_refund == 0)
            assert (await process.read_money()).alarms == ()
            assert await read_health(process) == []
            assert (await hanse.read_money()).alarms == ()
        await process.stop()


async def read_health(process: BrokerProcess) -> list[str]:
    async with aiohttp.ClientSession() as session, session.get(f"{process.url}/health") as answer:
        document = await answer.json()
        return list(document["money_alarms"])


async def test_a_service_that_its_engine_cannot_serve_is_refused() -> None:
    wrong = {"base_url": "http://127.0.0.1:9/v1", "model": "m", "operations": ["embeddings"]}
    engine = open_engine("upstream", wrong)
    with pytest.raises(RequestError) as caught:
        await build_offer(
            Service(1, engine, PRICES, only=CHAT),
            provider=ZERO_ADDRESS,
            endpoints=("http://127.0.0.1:1",),
            encryption_key=ZERO_HASH,
            valid_until=1,
            revision=1,
        )
    assert caught.value.code == "configuration_invalid"
    assert "service 1 is to sell chat/completions, completions" in caught.value.message
