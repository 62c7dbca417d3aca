"""Other prices while a broker serves: published, and the old ones honoured for a while."""

from dataclasses import replace
from pathlib import Path

import pytest

from hanse.engines import open_engine
from hanse.protocol.errors import RequestError
from hanse.protocol.messages import Prices
from hanse.provider import BrokerKeys, BrokerProcess, BrokerSettings, Service
from hanse.store.leases import LeaseTerms
from tests.provider.chain_parts import PRICES, STAKE, Market, run_market
from tests.sdk.test_on_chain import start_broker
from tests.waiting import until

pytestmark = pytest.mark.slow

DEARER = Prices(PRICES.input_per_mtok * 2, PRICES.cached_per_mtok, PRICES.output_per_mtok)


async def test_other_prices_come_into_force_and_the_old_are_honoured(
    tmp_path: Path, anvil_cache: Path
) -> None:
    async with run_market(tmp_path / "chain", anvil_cache) as market:
        process = await start_broker(market, tmp_path)
        offers = process.broker.parts.offers
        (before,) = offers.list_current()
        await process.reprice({1: DEARER, 99: PRICES})
        (after,) = offers.list_current()
        assert after.signed.offer.prices == DEARER
        assert after.signed.offer.revision == before.signed.offer.revision + 1
        assert offers.get_in_force(before.offer_hash).signed == before.signed
        await process.reprice({1: DEARER})
        assert offers.list_current() == [after]  # nothing new, no transaction
        await process.stop()


async def start_sharing(
    market: Market, folder: Path, database: str, service: Service
) -> BrokerProcess:
    settings = BrokerSettings(
        provider=market.owner.address,
        data_dir=folder,
        rpc_url=market.url,
        deployment=market.deployment,
        stake=STAKE,
        settle_interval_s=0,
        database=database,
        endpoints=("http://127.0.0.1:1",),
        lease=LeaseTerms(beat_s=0.1, missed_max=100),
    )
    return await BrokerProcess.start(settings, BrokerKeys(market.receipt, market.owner), [service])


async def test_a_service_that_follows_takes_over_the_leaders_prices(
    tmp_path: Path, anvil_cache: Path, postgres_server
) -> None:
    database = postgres_server.create_database()
    service = Service(1, open_engine("echo", {}), PRICES, follows_leader=True)
    other = replace(service, engine=open_engine("echo", {}), prices=Prices(1, 1, 1))
    async with run_market(tmp_path / "chain", anvil_cache) as market:
        leader = await start_sharing(market, tmp_path / "one", database, service)
        follower = await start_sharing(market, tmp_path / "two", database, other)

        def get_prices(process: BrokerProcess) -> Prices:
            return process.broker.parts.offers.list_current()[0].signed.offer.prices

        assert get_prices(follower) == PRICES
        await follower.reprice({1: Prices(2, 2, 2)})  # it does not lead
        assert get_prices(follower) == PRICES
        await leader.reprice({1: DEARER})
        await until(lambda: get_prices(follower) == DEARER)
        stubborn = replace(other, engine=open_engine("echo", {}), follows_leader=False)
        with pytest.raises(RequestError, match="offers service 1 otherwise") as refused:
            await start_sharing(market, tmp_path / "three", database, stubborn)
        assert "prices: there Prices(input_per_mtok=" in refused.value.message
        await follower.stop()
        await leader.stop()
