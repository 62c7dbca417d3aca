"""Which browser pages may call the gateway (CORS). None, unless a setting names them.

A page of an origin that is not allowed gets its answer, but its browser keeps it from reading it;
and since an API key makes every paid request a preflighted one, it is not even sent.

Source: the WHATWG Fetch standard, "CORS protocol".
"""

from hanse.gateway.exchange import Exchange, Headers

_EXPOSED = (
    b"hanse-receipt, hanse-provider, hanse-fee, hanse-fallback, hanse-degraded, hanse-structured, "
    b"hanse-attempts, hanse-match, hanse-total-fee, x-request-id, request-id, "
    b"retry-after, x-should-retry"
)
_WANTED_BYTES_MAX = 2_048
_MAX_AGE_S = 600


def add_cors_headers(exchange: Exchange, allowed_origins: tuple[str, ...]) -> bool:
    """Put the headers of an allowed origin on the answer; False if there is no such origin."""
    if not allowed_origins or not exchange.origin:
        return False
    origin = exchange.origin.decode("latin-1")
    exchange.extra_headers.append((b"vary", b"origin"))
    if origin not in allowed_origins and "*" not in allowed_origins:
        return False
    exchange.extra_headers += [
        (b"access-control-allow-origin", exchange.origin),
        (b"access-control-expose-headers", _EXPOSED),
    ]
    return True


async def answer_preflight(exchange: Exchange, methods: list[str]) -> None:
    """Answer a browser's `OPTIONS` for a path that takes these methods."""
    headers: Headers = [
        (b"access-control-allow-methods", ", ".join(methods).encode()),
        (b"access-control-max-age", str(_MAX_AGE_S).encode()),
    ]
    if exchange.wanted_headers and len(exchange.wanted_headers) <= _WANTED_BYTES_MAX:
        headers.append((b"access-control-allow-headers", exchange.wanted_headers))
    await exchange.start(204, headers)
    await exchange.send_part(b"", more=False)
