"""The gateway as an ASGI application: OpenAI's API for applications, the open market behind it.

Raw ASGI: the request path is the product, and a framework takes more processor time than everything
done here. This module routes, knows keys and answers what costs nothing; a paid request goes down
`hanse.gateway.selling.path`, which names the seams where budgets, matching and failover join.

What goes wrong is a `HanseError` and leaves in OpenAI's shape. What a provider says against this
gateway's own vouchers is no fault of the application's and leaves as 503, not as 401.
"""

import logging
import os
import time
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec

from hanse.gateway import metrics as figures
from hanse.gateway.budgets.admission import Budgets
from hanse.gateway.budgets.quotes import answer_quote
from hanse.gateway.client import ChoosingMarket, MarketClient
from hanse.gateway.cors import add_cors_headers, answer_preflight
from hanse.gateway.dialects.relay import speak
from hanse.gateway.exchange import (
    STATUS_GONE,
    AppGoneError,
    Event,
    Exchange,
    Receive,
    Send,
    get_draining,
)
from hanse.gateway.keys import ApiKey, ApiKeys, verify_reach
from hanse.gateway.keys.desk import answer_mint
from hanse.gateway.money import MoneyWatch
from hanse.gateway.openapi import get_description
from hanse.gateway.operations import PREFIX, get_operation
from hanse.gateway.selling.path import PaidPath
from hanse.gateway.settings import GatewaySettings
from hanse.gateway.telemetry.observer import Observer
from hanse.gateway.telemetry.status import StatusDesk
from hanse.gateway.telemetry.tracing import Tracing
from hanse.protocol.errors import HanseError, InvariantError, RequestError

_LOG = logging.getLogger("hanse.gateway")
_BEARER = b"bearer "


class GatewayApp:
    """The ASGI application of one gateway."""

    def __init__(
        self,
        settings: GatewaySettings,
        client: MarketClient,
        keys: ApiKeys,
        clock_s: Callable[[], float] = time.perf_counter,
        random_bytes: Callable[[int], bytes] = os.urandom,
        budgets: Budgets | None = None,
        local: MarketClient | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self.metrics = figures.GatewayMetrics()
        log = settings.access_log
        self.observer = Observer(self.metrics, clock_s, access_log=log, tracing=tracing)
        self.money = MoneyWatch(client, self.metrics)
        self.paid = PaidPath(settings, client, self.metrics, self.money, local, budgets, keys)
        self._settings = settings
        self._client = client
        self._keys = keys
        self._clock_s = clock_s
        self._random_bytes = random_bytes
        desk = StatusDesk(self.observer, self.paid, self.money, keys, budgets)
        self._handlers: dict[str, Callable[[Exchange], Awaitable[None]]] = {
            "models": self._list_models,
            "model": self._get_model,
            "money": self._get_money,
            "status": desk.answer,
            "health": self._get_health,
            "metrics": self._get_metrics,
            "openapi": self._get_openapi,
        }
        self._handlers_of_keys: dict[str, Callable[[Exchange, ApiKey], Awaitable[None]]] = {
            "quote": partial(answer_quote, budgets, self.paid.hold),
            "mint_key": partial(answer_mint, keys),
        }
        self._description = msgspec.json.encode(get_description())
        self._choose_by(settings)

    @property
    def settings(self) -> GatewaySettings:
        """Those in force."""
        return self._settings

    def apply(self, settings: GatewaySettings) -> None:
        """Put other settings in force."""
        self._settings = settings
        self.observer.access_log = settings.access_log
        self.paid.apply(settings)
        self._choose_by(settings)

    def _choose_by(self, settings: GatewaySettings) -> None:
        if settings.policy is not None and isinstance(self._client, ChoosingMarket):
            chooser = self._client.chooser
            chooser.choose_by(settings.policy, settings.trial_share, settings.region)

    @property
    def in_flight(self) -> int:
        """Paid requests at work."""
        return self.paid.in_flight

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        """Answer one request; see the ASGI specification."""
        if scope["type"] != "http":
            raise RuntimeError(f"the gateway speaks http, not {scope['type']}")
        started_s = self._clock_s()
        exchange = Exchange(scope, receive, send, "req_" + self._random_bytes(12).hex())
        name = "none"
        key: ApiKey | None = None
        try:
            if exchange.origin:
                allowed = add_cors_headers(exchange, self._settings.allowed_origins)
                if exchange.method == "OPTIONS" and allowed:
                    await self._answer_preflight(exchange)
                    return
            operation = get_operation(exchange.method, exchange.path)
            name = operation.name
            if operation.dialect is not None:
                speak(exchange, operation.dialect)
            if operation.authenticated:
                key = self._find_key(exchange) or await self._find_new_key(exchange)
                verify_reach(key, exchange.path, exchange.origin)
            if name in self._handlers:
                await self._handlers[name](exchange)
            elif key is None:
                raise AssertionError(f"{name} has no handler")
            elif name in self._handlers_of_keys:
                await self._handlers_of_keys[name](exchange, key)
            else:
                self.observer.begin(exchange, name, started_s)
                await self.paid.serve(exchange, operation, key)
        except AppGoneError:
            exchange.status = STATUS_GONE
        except Exception as error:
            await self._send_error(exchange, error)
        finally:
            self.observer.end(exchange, name, key.id if key else None, started_s)

    def _find_key(self, exchange: Exchange) -> ApiKey | None:
        """The API key of this request, if it is known here.

        Raises:
            RequestError: `api_key_invalid`, none is given.
        """
        given = exchange.authorization
        if given[:7].lower() != _BEARER:
            raise RequestError(
                "api_key_invalid",
                "no API key was given; send `Authorization: Bearer hgw_...`, a key of this gateway",
            )
        return self._keys.find(given[7:].strip().decode("latin-1"))

    async def _find_new_key(self, exchange: Exchange) -> ApiKey:
        """The same of a key that another process may have issued.

        Raises:
            RequestError: `api_key_invalid`.
        """
        key = await self._keys.find_new(exchange.authorization[7:].strip().decode("latin-1"))
        if key is None:
            raise RequestError(
                "api_key_invalid",
                "the API key is unknown here, was revoked or has expired. Whoever runs this "
                "gateway can make one: hanse gateway keys create NAME",
            )
        return key

    async def _send_error(self, exchange: Exchange, error: Exception) -> None:
        if not isinstance(error, HanseError):
            error = _report_defect(error)
        try:
            await self._tell(exchange, error)
        except AppGoneError:
            exchange.status = STATUS_GONE

    async def _tell(self, exchange: Exchange, error: HanseError) -> None:
        if exchange.status == 0:
            await exchange.send_error(error, self._settings.retry_after_s)
        elif exchange.streaming and not exchange.complete:
            await exchange.end_broken(error)

    async def _answer_preflight(self, exchange: Exchange) -> None:
        try:
            get_operation("", exchange.path)
        except RequestError as error:
            if error.code != "method_not_allowed":
                raise
            await answer_preflight(exchange, error.details["allowed"])

    async def _list_models(self, exchange: Exchange) -> None:
        await exchange.send_json(200, self._client.get_models())

    async def _get_model(self, exchange: Exchange) -> None:
        wanted = exchange.path[len(PREFIX) :]  # the server has decoded it
        for model in self._client.get_models()["data"]:
            if model["id"] == wanted:
                await exchange.send_json(200, model)
                return
        raise RequestError(
            "model_not_found", f"no provider offers {wanted!r:.160} now", param="model"
        )

    async def _get_money(self, exchange: Exchange) -> None:
        await exchange.send_json(200, await self.money.read_document())

    async def _get_health(self, exchange: Exchange) -> None:
        if self.paid.draining:
            raise get_draining()
        alarms = list(self.money.alarms)
        await exchange.send_json(
            200, {"status": "ok", "in_flight": self.in_flight, "money_alarms": alarms}
        )

    async def _get_metrics(self, exchange: Exchange) -> None:
        self.metrics.in_flight.set(self.in_flight)
        await exchange.send_whole(
            200, self.metrics.to_text(), [(b"content-type", figures.CONTENT_TYPE)]
        )

    async def _get_openapi(self, exchange: Exchange) -> None:
        await exchange.send_whole(200, self._description, [(b"content-type", b"application/json")])


def _report_defect(error: Exception) -> InvariantError:
    """Log where an unforeseen error arose, without its message: that may hold content."""
    places = []
    trace = error.__traceback__
    while trace is not None:
        places.append(f"{trace.tb_frame.f_code.co_qualname}:{trace.tb_lineno}")
        trace = trace.tb_next
    _LOG.error("%s in %s", type(error).__name__, " > ".join(places))
    return InvariantError("internal_error", "a defect in the gateway; its log says where")
