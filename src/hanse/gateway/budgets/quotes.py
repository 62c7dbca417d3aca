"""`POST /hanse/v1/quote`: what a request would cost, before it is made. Nothing is bought.

    {"path": "/v1/chat/completions", "body": {"model": ..., "messages": [...], "max_tokens": 60}}

The body's length counts; it is taken as it stands in the question, byte for byte.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from hanse.gateway.dialects.fields import decode_json
from hanse.gateway.exchange import Exchange
from hanse.gateway.keys import ApiKey, verify_model
from hanse.protocol.errors import RequestError
from hanse.protocol.limits import NAME_CHARS_MAX

if TYPE_CHECKING:
    from hanse.gateway.budgets.admission import Budgets

BODY_READ_S = 30.0

QUOTES_MAX = 32
"""Providers that are shown, the best first: further ones nobody reads, and a market may have
thousands."""


class QuotedBody(msgspec.Struct):
    """A body of the path that is asked about; here only its model is looked at."""

    model: Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX)]


class QuoteBody(msgspec.Struct, forbid_unknown_fields=True):
    """What `POST /hanse/v1/quote` takes: a path of OpenAI's API, and the body to be priced."""

    body: QuotedBody
    path: str = "/v1/chat/completions"


class _Bare(msgspec.Struct):
    body: msgspec.Raw


_decode = msgspec.json.Decoder(QuoteBody).decode
_decode_bare = msgspec.json.Decoder(_Bare).decode


async def answer_quote(
    budgets: "Budgets | None",
    hold: Callable[[Exchange, ApiKey], AbstractContextManager[Callable[[float], Awaitable[bytes]]]],
    exchange: Exchange,
    key: ApiKey,
) -> None:
    """Price a body by the providers of its model; it counts as a request of the key.

    Args:
        budgets: whose limits hold, and whose market is asked.
        hold: reads the body, whose bytes count among those at work.
        exchange: the question.
        key: who asks.
    """
    with hold(exchange, key) as read_body:
        await _answer(budgets, key, exchange, await read_body(BODY_READ_S))


async def _answer(budgets: "Budgets | None", key: ApiKey, exchange: Exchange, given: bytes) -> None:
    wish = decode_json(_decode, given)
    body = bytes(_decode_bare(given).body)
    model = wish.body.model
    verify_model(key, model)
    if budgets is None or budgets.market is None:
        raise RequestError("not_found", "this gateway buys nothing on the market")
    await budgets.count_question(key, body)
    quotes = budgets.market.quote(wish.path, body, most=QUOTES_MAX)
    if not quotes:
        raise RequestError("model_not_found", f"no provider offers {model:.80}", param="model")
    await exchange.send_json(200, {"quotes": [quote.to_document() for quote in quotes]})
