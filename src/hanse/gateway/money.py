"""The gateway's eye on its owner's money: alarms for `/health`, figures for `/metrics`.

    watch = MoneyWatch(client, metrics)
    task = asyncio.create_task(watch.run(60.0))
    watch.alarms                               # codes, for anyone who asks for the health

Amounts and words are for holders of an API key, at `GET /hanse/v1/money`; the health says only
which alarms there are. A look takes some reads of the chain's node, so it is made once in a while
and never by a request for health.
"""

import asyncio
import logging
from typing import Any

from hanse.gateway.client import MarketClient
from hanse.gateway.metrics import GatewayMetrics
from hanse.protocol.errors import HanseError

_LOG = logging.getLogger("hanse.gateway")


class MoneyWatch:
    """Looks at the money once in a while.

    Attributes:
        alarms: their codes as of the last look, each once.
    """

    def __init__(self, client: MarketClient, metrics: GatewayMetrics) -> None:
        self._client = client
        self._metrics = metrics
        self.alarms: tuple[str, ...] = ()

    async def read_document(self) -> dict[str, Any]:
        """Every place with its words, for `GET /hanse/v1/money`.

        Raises:
            TransientError: `chain_unavailable`.
        """
        # the chain's libraries take long to import, and keys need none of them
        from hanse.sdk.money import money_to_json, sum_by_code, sum_by_place

        money = await self._client.read_money()
        document = money_to_json(money)
        self._metrics.show_money(sum_by_place(money.places), sum_by_code(money.alarms))
        self.alarms = tuple(sorted({alarm.code for alarm in money.alarms}))
        return document

    async def run(self, every_s: float) -> None:
        """Look for ever; what the chain or the store refuse is asked again the next time."""
        while True:
            try:
                await self.read_document()
            except HanseError as error:
                _LOG.warning("the money could not be looked at: %s", error.message)
            await asyncio.sleep(every_s)
