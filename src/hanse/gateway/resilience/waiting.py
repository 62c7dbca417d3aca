"""Asking the market again for a moment when nobody can be asked right now.

Most of what stands in the way passes by itself within a second: a broker restarts, all slots are
taken, a provider rests after a failure. Each round may put a few more vouchers in flight, so there
are few. With a fallback at hand nobody waits.
"""

import asyncio

from hanse.gateway.client import MarketAnswer, MarketClient
from hanse.market import Needs
from hanse.protocol.errors import TransientError

PAUSE_S_MIN, PAUSE_S_MAX = 0.25, 1.0
"""Between two rounds; within them as long as the market itself says."""

_PASSING = frozenset(("no_provider", "rate_limited", "overloaded", "draining"))


async def ask_patiently(
    client: MarketClient,
    path: str,
    body: bytes,
    needs: Needs,
    asked: list[str] | None,
    wait_s: float,
) -> MarketAnswer:
    """The answer of the first round that finds a provider.

    Args:
        client: who is asked.
        path: of the request.
        body: of the request.
        needs: of its choice.
        asked: gets each provider's address.
        wait_s: time for all pauses together; 0 for one round.

    Raises:
        HanseError: what the last round said.
    """
    while True:
        try:
            return await client.request(path, body, needs, asked)
        except TransientError as error:
            if wait_s <= 0 or error.code not in _PASSING:
                raise
            wished_s = error.retry_after_s or PAUSE_S_MIN
            pause_s = min(wait_s, max(PAUSE_S_MIN, min(wished_s, PAUSE_S_MAX)))
        wait_s -= pause_s
        await asyncio.sleep(pause_s)
