"""A market client over another one, whose answers outlive their providers.

    steady = SteadyClient(client, lambda: settings, figures, fallback)
    answer = await steady.request(path, body, needs)

It is a `MarketClient` itself, so whoever hands answers on (as they are, in another dialect, held
against a schema) knows nothing of what happened behind them.

| what happens | what is done |
| --- | --- |
| a provider does not take the request | the SDK asks up to two others (`hanse.sdk.purchase`) |
| it took it and fails before the first byte | the same request at another one |
| it fails amid a stream | the rest is asked of another one; the application reads on |
| the rest cannot be asked for | the stream ends with the error, as it came |
| its first token is late | a second one is asked as well, if `hedge_after_s` is set |
| nobody can be asked right now | again, for up to `market_wait_s` |
| nobody is left | the local engine, else the canned answer, else the error |

Each part has a voucher and a receipt of its own. A frame costs a look at its ends, an entry in a
list and a flag; nothing is decoded and no task is made unless something goes wrong.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from hanse.gateway.client import MarketAnswer, MarketClient
from hanse.gateway.resilience.answer import SteadyAnswer
from hanse.gateway.resilience.fallback import Fallback
from hanse.gateway.resilience.figures import StayingFigures
from hanse.gateway.resilience.hedging import Hedge
from hanse.gateway.resilience.waiting import Means
from hanse.gateway.settings import GatewaySettings
from hanse.market import Needs
from hanse.protocol.errors import HanseError, TransientError

if TYPE_CHECKING:  # the chain's libraries take long to import, and keys need none of them
    from hanse.sdk.money import Money

_ANY = Needs()


class _Streaming(msgspec.Struct):
    stream: bool | None = None


class SteadyClient:
    """See the module."""

    def __init__(
        self,
        client: MarketClient,
        get_settings: Callable[[], GatewaySettings],
        figures: StayingFigures,
        fallback: Fallback,
    ) -> None:
        self._means = Means(client, get_settings, figures, fallback)
        self._hedge = Hedge(client, figures)

    async def request(
        self,
        path: str,
        body: bytes,
        needs: Needs | None = None,
        asked: list[str] | None = None,
    ) -> SteadyAnswer:
        """See `MarketClient.request`; a fallback may answer in the market's place."""
        wanted = needs or _ANY
        hedge_after_s = self._means.get_settings().hedge_after_s
        answer: MarketAnswer
        try:
            if hedge_after_s and _is_stream(body):
                answer = await self._hedge.open(path, body, wanted, hedge_after_s)
            else:
                try:
                    answer = await self._means.client.request(path, body, wanted, asked)
                except TransientError as error:
                    answer = await self._means.ask_again(error, path, body, wanted, asked)
        except HanseError as error:
            fallback = await self._means.fallback.find_answer(path, body, error)
            if fallback is None:
                raise
            return SteadyAnswer(self._means, path, body, wanted, fallback, error.code)
        return SteadyAnswer(self._means, path, body, wanted, answer)

    def get_models(self) -> dict[str, Any]:
        """See `MarketClient.get_models`."""
        return self._means.client.get_models()

    async def read_money(self) -> "Money":
        """See `MarketClient.read_money`."""
        return await self._means.client.read_money()

    def report_failure(self, provider: str, reason: str) -> None:
        """See `MarketClient.report_failure`."""
        self._means.client.report_failure(provider, reason)


def _is_stream(body: bytes) -> bool:
    try:
        return bool(msgspec.json.decode(body, type=_Streaming).stream)
    except msgspec.DecodeError:
        return False  # whoever is asked says what is wrong with it
