"""The gateway: OpenAI's API for unmodified applications, paid by the token on the open market.

    settings = GatewaySettings(port=8440)
    async with Hanse.open(sdk_settings) as hanse:          # resumes what was cut off
        keys = await open_api_keys(database, time.time)    # database: hanse.store.open_sqlite(path)
        await serve_gateway(settings, hanse, keys, on_ready=lambda server, port: ...)

    GatewaySettings(...)             msgspec struct: host, port, limits, CORS, access log
    serve_gateway(settings, hanse, keys, on_ready=None)    until SIGTERM/SIGINT or server.drain();
                                     `on_ready(server, port)` once the socket listens
    run_gateway(settings, open_client, database_path)      the same, blocking, uvloop; open_client()
                                     is an async context manager that gives the Hanse
    GatewayApp(settings, hanse, keys)                      the bare ASGI application

    open_api_keys(database, now_s)   -> ApiKeys
    await keys.create(name)          -> (ApiKey, text): the text is shown once, never stored
    await keys.list()                -> list[ApiKey(id, name, created_at, revoked_at)]
    await keys.revoke(key_id)        -> ApiKey; a running gateway on the same database follows
                                     within `keys_refresh_s`

Its paths stand in one table, `hanse.gateway.operations.OPERATIONS`, which `/openapi.json` tells.
Whole answers carry `Hanse-Receipt`, `Hanse-Provider` and `Hanse-Fee` (base units); streams carry
`Hanse-Provider`, and their receipt as an SSE comment before `[DONE]`. All carry `x-request-id`.

Source: docs/decisions/0010-gateway.md, docs/how-to/use-openai-sdk.md.
"""

from hanse.gateway.app import GatewayApp
from hanse.gateway.client import MarketAnswer, MarketClient
from hanse.gateway.keys import ApiKey, ApiKeys, open_api_keys
from hanse.gateway.server import GatewayServer, run_gateway, serve_gateway
from hanse.gateway.settings import GatewaySettings

__all__ = [
    "GatewaySettings",
    "run_gateway",
    "serve_gateway",
    "GatewayServer",
    "GatewayApp",
    "MarketClient",
    "MarketAnswer",
    "ApiKey",
    "ApiKeys",
    "open_api_keys",
]
