"""Where structured answers join the paid path: one call around the step that asks the market.

    demand = read_demand(sale, settings.structured_then)     # None: nothing is to be judged
    answer = await buy_fitting(sale, demand, ask)

Requests without a schema pass through untouched, and those of keys that are `unjudged`.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from hanse.gateway.bodies import names_format
from hanse.gateway.client import MarketAnswer, Receipted
from hanse.gateway.operations import CHAT
from hanse.gateway.selling.sale import Sale
from hanse.gateway.structured.checked import CheckedStream
from hanse.gateway.structured.demand import NAME_HEADER, STREAM, Demand, find_demand
from hanse.gateway.structured.validated import buy_validated
from hanse.market import Needs
from hanse.protocol.errors import VerificationError

Ask = Callable[[Sale, bytes, Needs], Awaitable[MarketAnswer]]
"""Asks the market for an answer to a body, narrowed by needs."""


def read_demand(sale: Sale, afterwards: str) -> Demand | None:
    """What an answer must be; None if it may be anything.

    Raises:
        RequestError: `invalid_request` for a schema that cannot be used.
    """
    if sale.operation is not CHAT or sale.key.terms.unjudged:
        return None
    wishes, has_format = sale.exchange.wishes, names_format(sale.fields)
    if not (wishes or has_format):
        return None
    return find_demand(sale.body, wishes, afterwards, has_format=has_format)


async def buy_fitting(
    sale: Sale, demand: Demand, ask: Ask, now_s: Callable[[], float] = time.time
) -> MarketAnswer:
    """What the market answers that fits.

    Raises:
        HanseError: what `ask` raises; `schema_unmet`, which SDKs shall not try again by themselves:
            each try is paid.
    """
    headers = sale.exchange.extra_headers
    if not demand.held:
        answer = await ask(sale, sale.body, sale.needs)
        headers.append((NAME_HEADER, STREAM.encode()))
        _note(sale, STREAM)
        return CheckedStream(answer, demand)

    async def buy(body: bytes, avoid: str, prefer: str) -> MarketAnswer:
        needs = sale.needs
        if avoid or prefer:
            excluded = needs.excluded | ({avoid} if avoid else set())
            needs = replace(needs, excluded=excluded, preferred=prefer or needs.preferred)
        return await ask(sale, body, needs)

    def spend(receipt: Receipted) -> None:
        sale.fees.append(receipt.fee)

    own = "chatcmpl-" + sale.exchange.request_id
    try:
        bought, told = await buy_validated(demand, sale.body, buy, spend, own, int(now_s()))
    except VerificationError as error:
        if error.code == "schema_unmet":
            _note(sale, "unmet")
            headers.append((b"x-should-retry", b"false"))
        raise
    headers += told
    _note(sale, dict(told)[NAME_HEADER].decode())
    return bought


def _note(sale: Sale, outcome: str) -> None:
    if sale.exchange.seen is not None:
        sale.exchange.seen.structured = outcome
