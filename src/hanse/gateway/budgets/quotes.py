"""`POST /hanse/v1/quote`: what a request would cost, before it is made. Nothing is bought.

    {"path": "/v1/chat/completions", "body": {"model": ..., "messages": [...], "max_tokens": 60}}

The body's length counts; it is taken as it stands in the question, byte for byte.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec
from msgspec import Meta

from hanse.gateway.client import GuardedMarket
from hanse.gateway.dialects.fields import get_field_error
from hanse.gateway.exchange import Exchange
from hanse.gateway.keys import ApiKey, verify_model
from hanse.protocol.errors import RequestError
from hanse.protocol.limits import NAME_CHARS_MAX, REQUEST_BODY_BYTES_MAX
from hanse.protocol.nesting import NESTING_MAX, is_nested_too_deep

BODY_READ_S = 30.0

_WRAPPING_BYTES_MAX = 1_024
"""Of the question around the body."""


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
    market: GuardedMarket | None,
    get_key: Callable[[Exchange], Awaitable[ApiKey]],
    exchange: Exchange,
) -> None:
    """Price a body by each provider of its model."""
    key = await get_key(exchange)
    given = await exchange.read_body(REQUEST_BODY_BYTES_MAX + _WRAPPING_BYTES_MAX, BODY_READ_S)
    if is_nested_too_deep(given):
        raise RequestError("invalid_request", f"the body has more than {NESTING_MAX} levels")
    try:
        wish = _decode(given)
        body = bytes(_decode_bare(given).body)
    except msgspec.ValidationError as error:
        raise get_field_error(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise RequestError("invalid_request", "the body is not JSON") from None
    model = wish.body.model
    verify_model(key, model)
    if market is None:
        raise RequestError("not_found", "this gateway buys nothing on the market")
    quotes = market.quote(wish.path, body)
    if not quotes:
        raise RequestError("model_not_found", f"no provider offers {model:.80}", param="model")
    await exchange.send_json(200, {"quotes": [quote.to_document() for quote in quotes]})
