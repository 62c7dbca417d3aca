"""Other prices while a broker serves: published, and the old ones honoured for a while."""

from pathlib import Path

import pytest

from hanse.protocol.messages import Prices
from tests.provider.chain_parts import PRICES, run_market
from tests.sdk.test_on_chain import start_broker

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
