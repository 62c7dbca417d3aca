"""Takes each request's record to where it is seen: metrics, access log, spans, the live view.

    seen = observer.begin(exchange, "chat_completions", began_s)      # a paid request
    ...                                                               # others fill it in
    observer.end(exchange, name, key_id, began_s)                     # any request

Spans are made when a request ends, from the times that it noted on its way: without a collector
nothing of them is done.
"""

import logging
import time
from collections.abc import Callable

import msgspec

from hanse.gateway.budgets.admission import DEGRADED_HEADER
from hanse.gateway.exchange import Exchange
from hanse.gateway.metrics import GatewayMetrics
from hanse.gateway.telemetry.record import NAME_CHARS, RequestRecord, Seen
from hanse.gateway.telemetry.tally import Tally
from hanse.gateway.telemetry.times import Times
from hanse.gateway.telemetry.tracing import Tracing
from hanse.market.stages import STAGES

_ACCESS = logging.getLogger("hanse.gateway.access")

FIRST, WHOLE, HEAD = "first_token", "whole", "head"


class Observer:
    """What one gateway sees of its requests.

    Attributes:
        times: histograms of the stages.
        tally: sums since the start.
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
        self.times = Times(
            "hanse_gateway_stage_seconds",
            "Stages of paid requests: queue, match, sign, head (a provider's first byte), "
            "first_token (the answer's first part left), whole.",
        )
        metrics.registry.register(self.times)
        self.tally = Tally()
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

    def end(self, exchange: Exchange, name: str, key_id: str | None, began_s: float) -> None:
        """A request has ended."""
        seconds = self._clock_s() - began_s
        self._metrics.count(name, exchange.status)
        if exchange.broken:
            self._metrics.break_stream()
        if exchange.method == "POST" and name != "none":
            self._metrics.time(name, seconds)
        seen = exchange.seen
        if seen is None and not self.access_log:
            return
        asked = 0 if seen is None else self._time(seen, seconds)
        record = self._make_record(exchange, name, key_id, seconds, asked)
        if seen is not None:
            self._count(seen, record)
            if self._tracing is not None:
                self._tracing.end(exchange, seen, record)
        if self.access_log:
            _ACCESS.info("%s", msgspec.json.encode(record).decode())

    def _make_record(
        self, exchange: Exchange, name: str, key_id: str | None, seconds: float, asked: int
    ) -> RequestRecord:
        seen = exchange.seen
        ms = round(seconds * 1000, 1)
        if seen is None:
            return RequestRecord(
                exchange.request_id, key_id, name, exchange.status, exchange.sent_bytes, ms
            )
        first_ms = round((seen.headed_s - seen.began_s) * 1000, 1) if seen.headed_s else None
        return RequestRecord(
            exchange.request_id,
            key_id,
            name,
            exchange.status,
            exchange.sent_bytes,
            ms,
            at=round(self._now_s(), 3),
            kind=seen.kind,
            model=seen.model[:NAME_CHARS],
            provider=seen.provider,
            fee=str(seen.fee),
            first_ms=first_ms,
            asked=asked,
            structured=seen.structured,
            error=seen.error,
            degraded=_find_step(exchange),
            is_broken=exchange.broken,
        )

    def _time(self, seen: Seen, seconds: float) -> int:
        """Add the stages to the histograms; how many providers were asked."""
        asked = 0
        add = self.times.add
        for name, began_s, ended_s, _ in seen.taken:
            add(name, ended_s - began_s)
            if name == HEAD:
                asked += 1
        if seen.headed_s:
            add(FIRST, seen.headed_s - seen.began_s)
        add(WHOLE, seconds)
        return asked

    def _count(self, seen: Seen, record: RequestRecord) -> None:
        self.tally.add(record, seen.fee)
        if seen.fee:
            self._metrics.pay_model(self.tally.get_label(record.model), seen.fee)
        if seen.structured:
            self._metrics.count_structured(seen.structured)
        if seen.error:
            self._metrics.count_error(seen.error)
        if record.degraded:
            self._metrics.count_degraded()
        self._metrics.count_asked(record.asked)


def _find_step(exchange: Exchange) -> str:
    """The step that budgets led this request down to, as the application is told it."""
    for name, value in exchange.extra_headers:
        if name == DEGRADED_HEADER:
            return value.decode("latin-1")[:NAME_CHARS]
    return ""
