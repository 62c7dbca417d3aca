"""One network for the tests of a file that leave it as they found it.

The file's `SELLERS` names who sells in it, its `GATEWAY_OPTIONS`, if there are any, how its gateway
is started. It ends with the file: its idle processes would take processor time from all tests after
it.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.network.market import Market, open_network, plan

PLANS = [
    # two that are killed all the time, each the only one with its model
    plan("wismar", model="echo-wismar"),
    plan("rostock", model="echo-rostock"),
    # two with the same model, one dearer
    plan("lubeck", model="echo-shared", output_price="200"),
    plan("hamburg", model="echo-shared", output_price="400"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def market(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, anvil_cache: Path
) -> AsyncIterator[Market]:
    plans = [one for one in PLANS if one.name in request.module.SELLERS]
    options = getattr(request.module, "GATEWAY_OPTIONS", ())
    home = tmp_path_factory.mktemp("network")
    async with open_network(home, anvil_cache, plans, gateway_options=options) as opened:
        yield opened
