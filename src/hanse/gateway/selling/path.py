"""The paid path: what happens to a request between its API key and its last byte.

    hold      the body's bytes are counted as they arrive                (`hold`)
    read      the body is read and checked                               (`_read`)
    admit     may this key buy this, within its limits?                  (`gateway.budgets`)
    wish      headers become `Needs` of the choice. SEAM of matching     (`_wish`)
    line      a place at work, in the turn of its class                  (`gateway.resilience`)
    buy       the market is asked. SEAM of structured answers            (`_get_answer`)
    stay up   other providers, a fallback                                (`gateway.resilience`)
    relay     bytes pass through                                         (`hanse.gateway.relay`)
    account   what it cost, once it is known. SEAM of budgets and fees   (`_account`)

A step that refuses raises a `HanseError`, which leaves in OpenAI's shape. `_account` runs however
the request ended, with as many fees as there were receipts.
"""

import asyncio
import contextlib
from collections.abc import Awaitable
from contextlib import AbstractContextManager
from functools import partial

from hanse.gateway import metrics as figures
from hanse.gateway.budgets.admission import Budgets
from hanse.gateway.client import MarketAnswer, MarketClient, blame
from hanse.gateway.dialects.relay import relay_translated
from hanse.gateway.exchange import Exchange, Watch, get_draining
from hanse.gateway.keys import ApiKey, ApiKeys
from hanse.gateway.money import MoneyWatch, advise
from hanse.gateway.operations import CHAT, Operation, decode_body, get_content_type
from hanse.gateway.relay import relay_stream, relay_whole
from hanse.gateway.resilience.fallback import Fallback
from hanse.gateway.resilience.figures import StayingFigures
from hanse.gateway.resilience.line import Line
from hanse.gateway.resilience.steady import SteadyClient
from hanse.gateway.resilience.wishes import CLASSES, Deadline, get_class
from hanse.gateway.selling.holding import BodyBytes, ReadBody
from hanse.gateway.selling.sale import Sale
from hanse.gateway.selling.wishes import read_needs
from hanse.gateway.settings import GatewaySettings
from hanse.gateway.structured.buying import buy_fitting, read_demand
from hanse.market import Needs
from hanse.protocol.errors import HanseError, RequestError
from hanse.serving import Looks


class PaidPath:
    """Takes paid requests to their end, bounded, and drains.

    Attributes:
        settings: its limits; may be replaced while it works.
        in_flight: paid requests at work.
        bodies: the bytes of their bodies.
        draining: whether nothing more is admitted.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        client: MarketClient,
        metrics: figures.GatewayMetrics,
        money: MoneyWatch,
        local: MarketClient | None = None,
        budgets: Budgets | None = None,
        keys: ApiKeys | None = None,
    ) -> None:
        self.settings = settings
        self.in_flight = 0
        self.draining = False
        staying = StayingFigures(metrics.registry)
        self._line = Line(settings.requests_max, settings.queue_max, settings.queue_wait_s, staying)
        self._fallback = Fallback(local, lambda: self.settings, staying)
        self._client = SteadyClient(client, lambda: self.settings, staying, self._fallback)
        self._budgets = budgets
        self._keys = keys
        self._metrics = metrics
        self._money = money
        self._stalls = Looks(settings.send_stall_s)
        self._watches: set[Watch] = set()
        self.bodies = BodyBytes()
        self._idle = asyncio.Event()

    def apply(self, settings: GatewaySettings) -> None:
        """Put other settings in force."""
        self.settings = settings
        self._line.places, self._line.queue_max = settings.requests_max, settings.queue_max
        self._line.wait_s = settings.queue_wait_s
        self._line.admit()
        if settings.send_stall_s != self._stalls.interval_s:
            self._stalls = Looks(settings.send_stall_s)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._line.waiting

    def drain(self) -> None:
        """Admit nothing more; with a shared port, one more request of each open connection."""
        self.draining = True
        if not self.in_flight:
            self._idle.set()

    async def wait_idle(self, within_s: float) -> None:
        """Return once nothing is at work after `drain`, or after this time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._idle.wait()

    def cut(self) -> None:
        """Cancel what is at work; streams end with the `draining` error."""
        for watch in tuple(self._watches):
            watch.cut(get_draining())

    async def serve(self, exchange: Exchange, operation: Operation, key: ApiKey) -> None:
        """Take one request to its end; see the module.

        Raises:
            HanseError: nothing was sent yet, and this is why.
            AppGoneError: the application left.
        """
        if self.draining:
            exchange.extra_headers.append((b"connection", b"close"))
            if not self.settings.shared_port:  # else its next connection reaches the successor
                raise get_draining()
        self.in_flight += 1
        try:
            kind, deadline = key.terms.request_class or CLASSES[0], None
            if exchange.wishes:
                kind = get_class(exchange.wishes, key.terms.request_class)
                deadline = Deadline.find(exchange.wishes)
            with self.bodies.hold(exchange, key, self.settings) as read_body:
                sale = await self._read(exchange, operation, key, read_body)
                if exchange.seen is not None:
                    exchange.seen.kind, exchange.seen.model = kind, sale.fields.model
                await self._sell(sale, kind, deadline)
        finally:
            self.in_flight -= 1
            if self.draining and not self.in_flight:
                self._idle.set()

    def hold(self, exchange: Exchange, key: ApiKey) -> AbstractContextManager[ReadBody]:
        """Count a body's bytes among those at work, also of one that buys nothing.

        The block gets what reads it within so many seconds, or raises `overloaded`.
        """
        return self.bodies.hold(exchange, key, self.settings)

    async def _read(
        self, exchange: Exchange, operation: Operation, key: ApiKey, read_body: ReadBody
    ) -> Sale:
        body = await read_body(self.settings.body_read_s)
        if operation.dialect is None:
            return Sale(exchange, operation, key, body, decode_body(operation, body))
        translation = operation.dialect.translate(body)
        fields = decode_body(CHAT, translation.body)
        return Sale(exchange, CHAT, key, translation.body, fields, translation=translation)

    async def _sell(self, sale: Sale, kind: str, deadline: Deadline | None) -> None:
        with Watch(sale.exchange, self._stalls) as watch:
            self._watches.add(watch)
            if deadline is not None:
                deadline.begin(watch.cut, sale.exchange.extra_headers)
            try:
                is_limited = self._budgets is not None and await self._budgets.admit(sale)
                if sale.exchange.wishes:
                    self._wish(sale)
                if self._budgets is not None and is_limited:
                    buy = partial(self._buy, sale, kind)
                    await self._budgets.run(sale, buy, self._find_free)
                else:
                    await self._buy(sale, kind)
            finally:
                if deadline is not None:
                    deadline.end()
                self._watches.discard(watch)
                self._account(sale)

    async def _buy(self, sale: Sale, kind: str) -> None:
        """With a place in the line, ask the market and hand its answer on."""
        seen = sale.exchange.seen
        began_s = seen.now() if seen is not None else 0.0
        if not self._line.try_enter(kind):
            await self._line.enter(kind)
        if seen is not None:
            seen.add("queue", began_s)
        try:
            # it may have waited for minutes, and its key may have ended meanwhile
            if self._keys is not None and self._keys.find_by_id(sale.key.id) is None:
                raise RequestError(
                    "api_key_invalid",
                    "the API key was revoked or expired while this request waited",
                )
            answer = sale.own or await self._get_answer(sale)
            try:
                await self._relay(sale, answer)
            finally:
                await answer.close()
                if seen is not None:
                    seen.provider = answer.provider
                receipt = answer.receipt
                if receipt is not None:
                    sale.fees.append(receipt.fee)
        finally:
            self._line.leave(kind)

    async def _find_free(self, sale: Sale, canned: str) -> MarketAnswer | None:
        """An answer that costs nothing, for a ladder's step."""
        if canned:
            return self._fallback.make_canned(sale.operation.path, sale.body, canned)
        return await self._fallback.find_local(sale.operation.path, sale.body)

    def _wish(self, sale: Sale) -> None:
        """What the application's headers ask of the choice."""
        headers = sale.exchange.extra_headers
        sale.needs = read_needs(sale.exchange.wishes, sale.needs, sale.key.id, headers)

    def _get_answer(self, sale: Sale) -> Awaitable[MarketAnswer]:
        demand = read_demand(sale, self.settings.structured_then)
        if demand is None:
            return self._ask(sale, sale.body, sale.needs)
        return buy_fitting(sale, demand, self._ask)

    def _relay(self, sale: Sale, answer: MarketAnswer) -> Awaitable[None]:
        if sale.translation is not None:
            return relay_translated(sale.exchange, answer, sale.translation)
        if answer.is_stream:
            return relay_stream(sale.exchange, answer)
        return relay_whole(sale.exchange, answer, get_content_type(sale.operation, sale.fields))

    async def _ask(self, sale: Sale, body: bytes, needs: Needs) -> MarketAnswer:
        try:
            answer = await self._client.request(sale.operation.path, body, needs)
        except HanseError as error:
            blamed = blame(error)
            advise(blamed, self._money.last, self.settings.wallet_key)
            raise blamed from None
        answer.mark(sale.exchange.extra_headers)
        sale.answers.append(answer)
        return answer

    def _account(self, sale: Sale) -> None:
        for answer in sale.answers:
            if answer.earlier:
                sale.fees.extend(receipt.fee for receipt in answer.earlier)
        fees = sum(sale.fees)
        if sale.exchange.seen is not None:
            sale.exchange.seen.fee = fees
        self._metrics.pay(fees)
