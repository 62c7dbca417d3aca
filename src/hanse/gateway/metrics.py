"""The gateway's figures for Prometheus.

They never hold content, keys or who asked what: an operation, a status, durations, fees. Labels are
of few values: our own words, codes of the error table, and the first `MODELS_MAX` models
(`hanse.gateway.telemetry.tally`).
"""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()


class GatewayMetrics:
    """Counters of one gateway, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        requests = ("operation", "status")
        self._requests = Counter(
            "hanse_gateway_requests",
            "Requests by operation and HTTP status; 499: the application left.",
            requests,
            registry=self.registry,
        )
        self._seconds = Histogram(
            "hanse_gateway_request_seconds",
            "From a paid request's head to its last byte.",
            ("operation",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._fees = Counter(
            "hanse_gateway_fees_base_units",
            "Fees of answers whose receipts were verified.",
            registry=self.registry,
        )
        self._model_fees = Counter(
            "hanse_gateway_model_fees_base_units",
            "The same by model; `other` once there are too many.",
            ("model",),
            registry=self.registry,
        )
        self._structured = Counter(
            "hanse_gateway_structured",
            "Requests with a JSON schema: valid, repaired, elsewhere, default, stream, unmet.",
            ("outcome",),
            registry=self.registry,
        )
        self._errors = Counter(
            "hanse_gateway_errors",
            "Paid requests that ended with an error, by its code.",
            ("code",),
            registry=self.registry,
        )
        self._asked = Counter(
            "hanse_gateway_providers_asked",
            "Vouchers that were sent to providers: one a request, and one for each further try.",
            registry=self.registry,
        )
        self._broken = Counter(
            "hanse_gateway_streams_broken",
            "Streams that ended without [DONE] while the application was there.",
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "hanse_gateway_requests_in_flight", "Paid requests at work.", registry=self.registry
        )
        self._money = Gauge(
            "hanse_gateway_money_base_units",
            "The owner's money by place, as of the last look.",
            ("place",),
            registry=self.registry,
        )
        self._alarms = Gauge(
            "hanse_gateway_money_alarms",
            "What should have moved by now and did not, by kind.",
            ("code",),
            registry=self.registry,
        )
        self._money_seen = Gauge(
            "hanse_gateway_money_seen_timestamp_seconds",
            "When the money was last looked at.",
            registry=self.registry,
        )
        self._children: dict[tuple[str, int], Any] = {}
        self._timers: dict[str, Any] = {}

    def count(self, operation: str, status: int) -> None:
        """One request has ended."""
        child = self._children.get((operation, status))
        if child is None:
            child = self._requests.labels(operation, str(status))
            self._children[operation, status] = child
        child.inc()

    def time(self, operation: str, seconds: float) -> None:
        """One paid request took so long."""
        child = self._timers.get(operation)
        if child is None:
            child = self._timers[operation] = self._seconds.labels(operation)
        child.observe(seconds)

    def pay(self, fee: int) -> None:
        """One receipt was verified."""
        self._fees.inc(fee)

    def pay_model(self, model: str, fee: int) -> None:
        """All receipts of one request for this model; the caller bounds the names."""
        self._model_fees.labels(model).inc(fee)

    def count_structured(self, outcome: str) -> None:
        """A request with a schema came to this."""
        self._structured.labels(outcome).inc()

    def count_error(self, code: str) -> None:
        """A paid request ended with this code of the error table."""
        self._errors.labels(code).inc()

    def count_asked(self, providers: int) -> None:
        """A paid request had so many providers asked."""
        self._asked.inc(providers)

    def break_stream(self) -> None:
        """One stream broke off."""
        self._broken.inc()

    def show_money(self, sums: dict[str, int], alarms: dict[str, int]) -> None:
        """What a look at the money found: base units by place, alarms by code."""
        self._money.clear()
        for place, amount in sums.items():
            self._money.labels(place).set(amount)
        for code, count in alarms.items():
            self._alarms.labels(code).set(count)
        self._money_seen.set_to_current_time()

    def to_text(self) -> bytes:
        """What `/metrics` answers."""
        return generate_latest(self.registry)
