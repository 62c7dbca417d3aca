"""Takes each request's record to where it is seen: metrics, access log, spans, the live view.

    seen = observer.begin(exchange, "chat_completions", began_s)      # a paid request
    ...                                                               # others fill it in
    observer.end(exchange, name, key_id, began_s)                     # any request

Spans are made when a request ends, from the times that it noted on its way: without a collector
nothing of them is done. What only a later look needs is worked out together, at that look or
`TOGETHER_MAX` requests later: a processor whose caches hold the code takes a third of the time.
"""

import logging
import time
from collections.abc import Callable

import msgspec

from hanse.gateway.budgets.admission import DEGRADED_HEADER
from hanse.gateway.exchange import Exchange, Headers
from hanse.gateway.metrics import GatewayMetrics
from hanse.gateway.telemetry.record import NAME_CHARS, RequestRecord, Seen
from hanse.gateway.telemetry.tally import Tally
from hanse.gateway.telemetry.times import Times
from hanse.gateway.telemetry.tracing import Tracing
from hanse.market.stages import STAGES

_ACCESS = logging.getLogger("hanse.gateway.access")

FIRST, WHOLE, HEAD = "first_token", "whole", "head"

TOGETHER_MAX = 64
"""Ended requests that are worked out at once: in half a millisecond, and 1 kB each until then."""


class _Ended(msgspec.Struct, frozen=True):
    """What remains of a request until it is worked out; nothing of its content."""

    request_id: str
    key: str | None
    name: str
    is_post: bool
    status: int
    sent_bytes: int
    is_broken: bool
    headers: Headers
    seconds: float
    at: float
    seen: Seen | None


class Observer:
    """What one gateway sees of its requests.

    Attributes:
        began_at: unix seconds of the start.
        access_log: whether each request gets a line.
    """

    def __init__(
        self,
        metrics: GatewayMetrics,
        clock_s: Callable[[], float],
        *,
        access_log: bool = False,
        tracing: Tracing | None = None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._times = Times(
            "hanse_gateway_stage_seconds",
            "Stages of paid requests: queue, match, sign, head (a provider's first byte), "
            "first_token (the answer's first part left), whole.",
        )
        metrics.registry.register(self._times)
        metrics.before_look = self._catch_up
        self._tally = Tally()
        self._ended: list[_Ended] = []
        self.began_at = now_s()
        self._metrics = metrics
        self._clock_s = clock_s
        self._now_s = now_s
        self.access_log = access_log
        self._tracing = tracing

    def begin(self, exchange: Exchange, operation: str, began_s: float) -> Seen:
        """A paid request is about to be served in this task."""
        seen = exchange.seen = Seen(self._clock_s, began_s, operation)
        STAGES.set(seen)
        if self._tracing is not None:
            self._tracing.begin(exchange, seen)
        return seen

    @property
    def times(self) -> Times:
        """Histograms of the stages."""
        self._catch_up()
        return self._times

    @property
    def tally(self) -> Tally:
        """Sums since the start."""
        self._catch_up()
        return self._tally

    def end(self, exchange: Exchange, name: str, key_id: str | None, began_s: float) -> None:
        """A request has ended."""
        seen = exchange.seen
        ended = _Ended(
            exchange.request_id,
            key_id,
            name,
            exchange.method == "POST",
            exchange.status,
            exchange.sent_bytes,
            exchange.broken,
            exchange.extra_headers,
            self._clock_s() - began_s,
            self._now_s(),
            seen,
        )
        if self._tracing is None and not self.access_log:
            self._ended.append(ended)
            if len(self._ended) >= TOGETHER_MAX:
                self._catch_up()
            return
        self._catch_up()
        record = self._count(ended)
        if seen is not None and self._tracing is not None:
            self._tracing.end(exchange, seen, record)
        if self.access_log:
            _ACCESS.info("%s", msgspec.json.encode(record).decode())

    def _catch_up(self) -> None:
        """Count what has ended."""
        ended, self._ended = self._ended, []
        for one in ended:
            self._count(one)

    def _count(self, ended: _Ended) -> RequestRecord:
        record, seen = _make_record(ended), ended.seen
        self._metrics.count(ended.name, ended.status)
        if ended.is_broken:
            self._metrics.break_stream()
        if ended.is_post and ended.name != "none":
            self._metrics.time(ended.name, ended.seconds)
        if seen is not None:
            self._time(seen, ended.seconds)
            self._count_paid(seen, record)
        return record

    def _time(self, seen: Seen, seconds: float) -> None:
        """Add the stages to the histograms."""
        stages = [(name, ended_s - began_s) for name, began_s, ended_s, _ in seen.taken]
        if seen.headed_s:
            stages.append((FIRST, seen.headed_s - seen.began_s))
        stages.append((WHOLE, seconds))
        self._times.add_all(stages)

    def _count_paid(self, seen: Seen, record: RequestRecord) -> None:
        self._tally.add(record, seen.fee)
        if seen.fee:
            self._metrics.pay_model(self._tally.get_label(record.model), seen.fee)
        if seen.structured:
            self._metrics.count_structured(seen.structured)
        if seen.error:
            self._metrics.count_error(seen.error)
        if record.degraded:
            self._metrics.count_degraded()
        self._metrics.count_asked(record.asked)


def _make_record(ended: _Ended) -> RequestRecord:
    seen = ended.seen
    ms = round(ended.seconds * 1000, 1)
    if seen is None:
        return RequestRecord(
            ended.request_id, ended.key, ended.name, ended.status, ended.sent_bytes, ms
        )
    first_ms = round((seen.headed_s - seen.began_s) * 1000, 1) if seen.headed_s else None
    return RequestRecord(
        ended.request_id,
        ended.key,
        ended.name,
        ended.status,
        ended.sent_bytes,
        ms,
        at=round(ended.at, 3),
        kind=seen.kind,
        model=seen.model[:NAME_CHARS],
        provider=seen.provider,
        fee=str(seen.fee),
        first_ms=first_ms,
        asked=[stage[0] for stage in seen.taken].count(HEAD),
        structured=seen.structured,
        error=seen.error,
        degraded=_find_step(ended.headers),
        is_broken=ended.is_broken,
    )


def _find_step(headers: Headers) -> str:
    """The step that budgets led a request down to, as the application is told it."""
    for name, value in headers:
        if name == DEGRADED_HEADER:
            return value.decode("latin-1")[:NAME_CHARS]
    return ""
