"""OpenTelemetry spans of paid requests, off unless a setting names a collector.

One span a request, and one below it for each stage: queue, match, sign, head. An application's
`traceparent` makes it the parent, and its decision to sample is kept. Spans hold ids, names, times,
amounts and codes; never content, an error's message, or a key.

    tracing = open_tracing("http://127.0.0.1:4318/v1/traces")     # the extra `telemetry`

Spans are sent in batches by a thread of the library's; when the collector is away they are dropped.

Source: W3C Trace Context; OpenTelemetry's semantic conventions for generative AI and HTTP.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from hanse.gateway.settings import GatewaySettings
from hanse.gateway.telemetry.record import RequestRecord, Seen
from hanse.protocol.errors import RequestError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from hanse.gateway.exchange import Exchange

SERVICE = "hanse-gateway"
FLUSH_MS = 5_000
"""What is waiting at the end may take so long to be sent."""

CARRIED = (b"traceparent", b"tracestate")
"""Headers in which an application names its own trace."""

_NS = 1_000_000_000

_Place = Callable[[float], int]
"""Puts a moment of a request's clock into unix nanoseconds."""


class Tracing(Protocol):
    """Makes spans of requests."""

    def begin(self, exchange: "Exchange", seen: Seen) -> None:
        """A paid request has come."""
        ...

    def end(self, exchange: "Exchange", seen: Seen, record: RequestRecord) -> None:
        """It has ended."""
        ...

    def close(self) -> None:
        """Send what waits. Blocks."""
        ...


class OpenTelemetry:
    """Spans by the SDK of OpenTelemetry.

    Args:
        provider: makes and sends the spans.
        to_providers: whether providers get a `traceparent` too.
        now_s: unix seconds, to place the requests' clocks in time.
    """

    def __init__(
        self,
        provider: "TracerProvider",
        *,
        to_providers: bool = False,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("hanse.gateway")
        self._propagator = TraceContextTextMapPropagator()
        self._trace = trace
        self._to_providers = to_providers
        self._now_s = now_s
        self._spans: dict[str, tuple[Any, _Place]] = {}

    def begin(self, exchange: "Exchange", seen: Seen) -> None:
        """Begin the request's span, below the application's if it names one."""
        carrier = {
            name.decode(): value.decode("latin-1")
            for name, value in exchange.headers
            if name in CARRIED
        }
        context = self._propagator.extract(carrier) if carrier else None
        # one look at both clocks a request: with a second one an end could come before its begin
        offset_ns = int((self._now_s() - seen.now()) * _NS)

        def place(moment_s: float) -> int:
            return offset_ns + int(moment_s * _NS)

        span = self._tracer.start_span(
            seen.operation,
            context=context,
            kind=self._trace.SpanKind.SERVER,
            start_time=place(seen.began_s),
        )
        self._spans[exchange.request_id] = span, place
        if self._to_providers:
            found = span.get_span_context()
            flags = int(found.trace_flags)
            seen.traceparent = f"00-{found.trace_id:032x}-{found.span_id:016x}-{flags:02x}"

    def end(self, exchange: "Exchange", seen: Seen, record: RequestRecord) -> None:
        """Give the span its stages and what came of the request."""
        found = self._spans.pop(exchange.request_id, None)
        if found is None:
            return
        span, place = found
        if span.is_recording():
            self._describe(span, place, exchange, seen, record)
        span.end(place(seen.now()))

    def close(self) -> None:
        """Send what waits. Blocks for `FLUSH_MS` at most."""
        self._provider.force_flush(FLUSH_MS)
        self._provider.shutdown()

    def _describe(
        self,
        span: Any,
        place: _Place,
        exchange: "Exchange",
        seen: Seen,
        record: RequestRecord,
    ) -> None:
        facts = {
            "hanse.request_id": record.request_id,
            "hanse.key": record.key or "",
            "hanse.class": record.kind,
            "hanse.provider": record.provider,
            "hanse.fee": record.fee,
            "hanse.structured": record.structured,
            "gen_ai.request.model": record.model,
            "error.type": record.error,
        }
        span.set_attributes({name: value for name, value in facts.items() if value})
        span.set_attribute("http.request.method", exchange.method)
        span.set_attribute("url.path", exchange.path)
        span.set_attribute("http.response.status_code", record.status)
        if record.error or record.is_broken:
            span.set_status(self._trace.StatusCode.ERROR)
        if seen.headed_s:
            span.add_event("first_token", timestamp=place(seen.headed_s))
        kinds = self._trace.SpanKind
        below = self._trace.set_span_in_context(span)
        for name, began_s, ended_s, provider in seen.taken:
            child = self._tracer.start_span(
                name,
                context=below,
                kind=kinds.CLIENT if provider else kinds.INTERNAL,
                attributes={"hanse.provider": provider} if provider else None,
                start_time=place(began_s),
            )
            child.end(place(ended_s))


@asynccontextmanager
async def trace_requests(settings: GatewaySettings) -> AsyncIterator[OpenTelemetry | None]:
    """The tracing that a gateway's settings ask for; None for none. At the end what waits is sent.

    Raises:
        RequestError: `configuration_invalid` without the extra `telemetry`.
    """
    if not settings.telemetry_url:
        yield None
        return
    tracing = open_tracing(
        settings.telemetry_url,
        settings.telemetry_share,
        to_providers=settings.telemetry_to_providers,
    )
    try:
        yield tracing
    finally:
        await asyncio.to_thread(tracing.close)


def open_tracing(url: str, share: float = 1.0, *, to_providers: bool = False) -> OpenTelemetry:
    """Spans to an OTLP collector over HTTP.

    Args:
        url: of the collector's traces, such as `http://127.0.0.1:4318/v1/traces`.
        share: of requests without a `traceparent`, those that are sampled.
        to_providers: see `OpenTelemetry`.

    Raises:
        RequestError: `configuration_invalid` without the extra `telemetry`.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    except ImportError:
        raise RequestError(
            "configuration_invalid",
            "traces need OpenTelemetry; install the extra: pip install 'hanse[telemetry]'",
            param="telemetry_url",
        ) from None
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(share)),
        resource=Resource.create({"service.name": SERVICE}),
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
    return OpenTelemetry(provider, to_providers=to_providers)
