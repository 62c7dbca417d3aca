"""Asking the market again for a moment when nobody can be asked right now.

Most of what stands in the way passes by itself within a second: a broker restarts, all slots are
taken, a provider rests after a failure. Each round may put a few more vouchers in flight, so there
are few. With a fallback at hand nobody waits.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from hanse.gateway.client import MarketAnswer, MarketClient
from hanse.gateway.resilience.fallback import Fallback
from hanse.gateway.resilience.figures import StayingFigures
from hanse.gateway.resilience.patience import LOOKS, Patience
from hanse.gateway.settings import GatewaySettings
from hanse.market import Needs
from hanse.protocol.errors import HanseError, TransientError
from hanse.serving import Looks

PAUSE_S_MIN, PAUSE_S_MAX = 0.25, 1.0
"""Between two rounds; within them as long as the market itself says."""

_PASSING = frozenset(("no_provider", "rate_limited", "overloaded", "draining"))


@dataclass(frozen=True, slots=True)
class Means:
    """What a steady client and its answers work with."""

    client: MarketClient
    get_settings: Callable[[], GatewaySettings]
    figures: StayingFigures
    fallback: Fallback
    looks: dict[float, Looks] = field(default_factory=dict)

    def watch_silence(self) -> Patience:
        """Be patient with a stream that this task reads, as the settings say now."""
        settings = self.get_settings()
        silence_s = settings.silence_s
        looks = self.looks.get(silence_s)
        if looks is None:
            looks = self.looks[silence_s] = Looks(silence_s / LOOKS)
        return Patience(silence_s, settings.first_token_s, looks)

    async def ask_again(
        self,
        error: TransientError,
        path: str,
        body: bytes,
        needs: Needs,
        asked: list[str] | None = None,
    ) -> MarketAnswer:
        """The answer of the first further round that finds a provider.

        Args:
            error: what the first round said.
            path: of the request.
            body: of the request.
            needs: of its choice.
            asked: gets each provider's address.

        Raises:
            HanseError: what the last round said.
        """
        wait_s = 0.0 if self.fallback.is_there else self.get_settings().market_wait_s
        while wait_s > 0 and error.code in _PASSING:
            wished_s = error.retry_after_s or PAUSE_S_MIN
            pause_s = min(wait_s, max(PAUSE_S_MIN, min(wished_s, PAUSE_S_MAX)))
            wait_s -= pause_s
            await asyncio.sleep(pause_s)
            try:
                return await self.client.request(path, body, needs, asked)
            except TransientError as again:
                error = again
        raise error

    async def ask_elsewhere(
        self, path: str, body: bytes, needs: Needs, failure: HanseError, *, amid: bool
    ) -> tuple[MarketAnswer, str]:
        """Another provider's answer and nothing, or a fallback's and the code of `failure`.

        Args:
            path: of the request.
            body: of the request.
            needs: of its choice.
            failure: of whoever was asked before.
            amid: whether something was delivered already, so that the rest is asked for.

        Raises:
            HanseError: `failure`, as nobody takes it.
        """
        try:
            try:
                return await self.client.request(path, body, needs), ""
            except TransientError as error:
                return await self.ask_again(error, path, body, needs), ""
        except HanseError:
            part = await self.fallback.find_answer(path, body, failure, amid_stream=amid)
            if part is None:
                raise failure from None
            return part, failure.code
