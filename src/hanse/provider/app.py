"""The broker as a raw ASGI application: routes, limits, and errors in OpenAI's shape.

    broker = Broker(provider=..., domain=..., book=..., chain_view=..., offers=...)
    broker.admitting = True          # until then, and while draining, paid requests get 503
    uvicorn.Config(broker, ...)

Unknown exceptions become 500 `internal_error` without their text, and are counted.
"""

import asyncio
import contextlib
import logging
import time
import traceback
from collections.abc import Awaitable, Callable

from hanse.protocol.attestation.binding import ATTESTATION_PATH
from hanse.protocol.commitments.tree import OPENINGS_PATH
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import HanseError, InvariantError, RequestError, TransientError
from hanse.protocol.signatures import Address
from hanse.protocol.wire import HEARTBEATS_PATH, OPERATIONS_BY_PATH, offer_to_json
from hanse.provider.attesting import Attesting
from hanse.provider.attesting.service import send_attestation
from hanse.provider.chain_view import ChainView
from hanse.provider.cheating import HONEST, BrokerCheats
from hanse.provider.finishing import Failpoint, ServingParts
from hanse.provider.heartbeats import Heartbeats
from hanse.provider.http import (
    AnswerCutError,
    CallerLeftError,
    CallerStalledError,
    Header,
    Receive,
    Scope,
    Send,
    send_bytes,
    send_error,
    send_json,
)
from hanse.provider.metrics import CONTENT_TYPE, BrokerMetrics
from hanse.provider.offers import OfferBook, list_engines
from hanse.provider.queries import QueryService
from hanse.provider.serve import PaidService
from hanse.provider.settings import ServingLimits
from hanse.serving import ABORT
from hanse.settlement import ReceiptBook
from hanse.settlement.openings.opening_book import OpeningBook
from hanse.settlement.traces.writer import TraceWriter
from hanse.store.leases import Membership

ENGINE_CHECK_S = 1.0
"""Health is asked by anyone; the engines behind it hear of it this often at most."""

ANSWERS_PATH = "/hanse/v1/answers/"

_log = logging.getLogger(__name__)
_Get = Callable[[Scope, Send], Awaitable[None]]


def no_failpoint(name: str) -> None:
    """The failpoint of production."""


class Broker:
    """The ASGI application.

    Attributes:
        admitting: whether paid requests are taken.
        money_alarms: codes of what is wrong with the provider's money, as of the last look.
        parts: what it works with.
    """

    def __init__(
        self,
        *,
        provider: Address,
        domain: Domain,
        book: ReceiptBook,
        chain_view: ChainView,
        offers: OfferBook,
        metrics: BrokerMetrics | None = None,
        limits: ServingLimits | None = None,
        now_s: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        failpoint: Failpoint = no_failpoint,
        traces: TraceWriter | None = None,
        attesting: Attesting | None = None,
        openings: OpeningBook | None = None,
        cheats: BrokerCheats = HONEST,
    ) -> None:
        self.parts = ServingParts(
            provider,
            domain,
            book,
            chain_view,
            offers,
            metrics or BrokerMetrics(),
            limits or ServingLimits(),
            now_s,
            monotonic,
            failpoint,
            traces,
            openings,
            cheats,
        )
        if traces is not None:
            self.parts.metrics.watch_traces(traces)
        self._attesting = attesting
        self.admitting = False
        self.money_alarms: tuple[str, ...] = ()
        self._draining = False
        self._broken: InvariantError | None = None
        self._at_work = 0
        self._engines_checked = -ENGINE_CHECK_S
        self._engines_healthy = False
        self._paid = PaidService(self.parts)
        self._queries = QueryService(self.parts)
        self._heartbeats = Heartbeats(self.parts, self._paid.slots)
        self._reads: dict[str, _Get] = {
            "/v1/models": self._send_models,
            "/hanse/v1/offers": self._send_offers,
            HEARTBEATS_PATH: self._send_heartbeats,
            "/hanse/v1/sub-account": self._queries.send_sub_account,
            "/hanse/v1/receipts": self._queries.send_receipts,
            "/health": self._send_health,
            "/metrics": self._send_metrics,
        }

    @property
    def in_flight(self) -> int:
        """Paid requests at work."""
        return self._paid.slots.taken

    def begin_draining(self) -> None:
        """Refuse new paid requests from now on; what is at work goes on."""
        self.admitting, self._draining = False, True

    async def wait_idle(self, most_s: float) -> None:
        """Wait until no paid request is at work, or the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                await self._paid.slots.wait_empty()

    async def maintain(self) -> None:
        """Finish what the store refused earlier, and let go of old answers."""
        await self._paid.finisher.retry_unfinished()
        await self._paid.close_lost()
        now_s = int(self.parts.now_s())
        await self.parts.book.sweep_answers(now_s)
        if self.parts.openings is not None:
            await self.parts.openings.sweep(now_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One HTTP exchange."""
        if scope["type"] != "http":
            raise RuntimeError(f"this application speaks HTTP only, not {scope['type']}")
        self._at_work += 1
        try:
            await self._route(scope, receive, send)
        except HanseError as error:
            await self._refuse(send, error)
        except CallerLeftError:
            pass
        except AnswerCutError as error:
            self.parts.metrics.count_refusal(str(error))
            abort = scope.get("state", {}).get(ABORT)
            if isinstance(error, CallerStalledError) and abort is not None:
                abort()  # else the server would wait for the caller to read the rest
                await asyncio.sleep(0)
        except Exception as error:
            # Where it was, without the exception's text: that may hold what a caller sent.
            where = "".join(traceback.format_tb(error.__traceback__))
            _log.error("a defect: %s\n%s", type(error).__name__, where)
            self.parts.metrics.count_defect()
            await self._refuse(
                send, HanseError("internal_error", "a defect of this broker; please report it")
            )
        finally:
            self._at_work -= 1

    def _route(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        path, method = scope["path"], scope["method"]
        operation = OPERATIONS_BY_PATH.get(path)
        if operation is not None:
            _check_method(method, "POST", path)
            self._check_admitting()
            return self._paid.serve(operation, scope, receive, send)
        read = self._reads.get(path)
        if read is not None:
            _check_method(method, "GET", path)
            return read(scope, send)
        if path.startswith(ANSWERS_PATH):
            _check_method(method, "GET", path)
            return self._queries.send_answer(scope, send, path.removeprefix(ANSWERS_PATH))
        if path.startswith(OPENINGS_PATH):
            _check_method(method, "GET", path)
            return self._queries.send_opening(scope, send, path.removeprefix(OPENINGS_PATH))
        if path.startswith(ATTESTATION_PATH):
            _check_method(method, "GET", path)
            return send_attestation(self._attesting, send, path.removeprefix(ATTESTATION_PATH))
        raise RequestError("not_found", f"there is no path {path[:80]!r} here")

    def _check_admitting(self) -> None:
        if self._broken is not None:
            raise self._broken
        if self._draining:
            raise TransientError(
                "draining", "this broker is stopping: go elsewhere", retry_after_s=30.0
            )
        if not self.admitting:
            raise TransientError("engine_unavailable", "this broker is starting", retry_after_s=5.0)
        most = self.parts.limits.requests_max
        if self._at_work > most:
            raise TransientError(
                "overloaded", f"more than {most} requests are at work", retry_after_s=1.0
            )

    async def _refuse(self, send: Send, error: HanseError) -> None:
        self.parts.metrics.count_refusal(error.code)
        extra: tuple[Header, ...] = ()
        if isinstance(error, InvariantError):
            # Our books contradict themselves: no more money is taken until a person has looked.
            self._broken = error
            _log.error("stopped admitting: %s", error.message)
        if error.code == "method_not_allowed" and error.param:
            extra = ((b"allow", error.param.encode()),)
        await send_error(send, error, extra)

    async def _send_models(self, scope: Scope, send: Send) -> None:
        models = {offer.signed.offer.model: None for offer in self.parts.offers.list_current()}
        data = [
            {"id": model, "object": "model", "created": 0, "owned_by": "hanse"} for model in models
        ]
        await send_json(send, 200, {"object": "list", "data": data})

    async def _send_offers(self, scope: Scope, send: Send) -> None:
        offers = [offer_to_json(offer.signed) for offer in self.parts.offers.list_current()]
        await send_json(send, 200, {"offers": offers})

    async def _send_heartbeats(self, scope: Scope, send: Send) -> None:
        self._check_admitting()
        await send_json(send, 200, {"heartbeats": await self._heartbeats.get_newest()})

    async def _send_health(self, scope: Scope, send: Send) -> None:
        self._check_admitting()
        await self._check_engines()
        await send_json(
            send,
            200,
            {
                "status": "ok",
                "in_flight": self.in_flight,
                "chain_block": self.parts.chain_view.block,
                "money_alarms": list(self.money_alarms),
                **_describe_group(self.parts.book.membership),
            },
        )

    async def _check_engines(self) -> None:
        """Ask the engines, at most once in `ENGINE_CHECK_S` whoever asks us."""
        now = self.parts.monotonic()
        if now >= self._engines_checked + ENGINE_CHECK_S:
            self._engines_checked = now
            current = self.parts.offers.list_current()
            engines = list_engines([offer.service for offer in current])
            healthy = await asyncio.gather(*(engine.healthy() for engine in engines))
            self._engines_healthy = any(healthy)
        if not self._engines_healthy:
            is_closed = self.parts.offers.is_closed
            what = (
                "this broker offers nothing" if is_closed else "no engine of this broker is ready"
            )
            raise TransientError("engine_unavailable", what, retry_after_s=5.0)

    async def _send_metrics(self, scope: Scope, send: Send) -> None:
        self.parts.metrics.chain_block.set(self.parts.chain_view.block)
        body = self.parts.metrics.render()
        await send_bytes(send, 200, body, ((b"content-type", CONTENT_TYPE),))


def _describe_group(membership: Membership | None) -> dict[str, object]:
    """Who shares the database and who leads; nothing where one process has it to itself."""
    if membership is None:
        return {}
    return {
        "instance": membership.name,
        "leader": membership.leader,
        "instances": [member.name for member in membership.members],
    }


def _check_method(method: str, expected: str, path: str) -> None:
    if method != expected:
        raise RequestError(
            "method_not_allowed", f"{path} takes {expected}, not {method[:16]}", param=expected
        )
