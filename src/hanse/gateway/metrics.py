"""The gateway's figures for Prometheus.

They never hold content, keys or who asked what: an operation, a status, durations, fees. Labels are
of few values: our own words, codes of the error table, and the first `MODELS_MAX` models
(`hanse.gateway.telemetry.tally`).
"""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from hanse.gateway.telemetry.times import Times

CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()


class GatewayMetrics(Collector):
    """Figures of one gateway, in a registry of its own.

    What is counted at every request are plain numbers that only the event loop's thread changes;
    the library's counters take a lock and about a microsecond each. They become metrics when they
    are scraped.

    Attributes:
        before_look: called before each scrape, by whoever counts behind.
    """

    def __init__(self) -> None:
        self.before_look: Callable[[], None] = _do_nothing
        self.registry = CollectorRegistry()
        self._requests: dict[tuple[str, int], int] = {}
        self._model_fees: dict[str, int] = {}
        self._structured: dict[str, int] = {}
        self._errors: dict[str, int] = {}
        self._fees = self._broken = self._asked = self._degraded = 0
        self.registry.register(self)
        self._seconds = Times(
            "hanse_gateway_request_seconds",
            "From a paid request's head to its last byte.",
            "operation",
        )
        self.registry.register(self._seconds)
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

    def count(self, operation: str, status: int) -> None:
        """One request has ended."""
        key = operation, status
        self._requests[key] = self._requests.get(key, 0) + 1

    def time(self, operation: str, seconds: float) -> None:
        """One paid request took so long."""
        self._seconds.add(operation, seconds)

    def pay(self, fee: int) -> None:
        """One receipt was verified."""
        self._fees += fee

    def pay_model(self, model: str, fee: int) -> None:
        """All receipts of one request for this model; the caller bounds the names."""
        self._model_fees[model] = self._model_fees.get(model, 0) + fee

    def count_structured(self, outcome: str) -> None:
        """A request with a schema came to this."""
        self._structured[outcome] = self._structured.get(outcome, 0) + 1

    def count_error(self, code: str) -> None:
        """A paid request ended with this code of the error table."""
        self._errors[code] = self._errors.get(code, 0) + 1

    def count_asked(self, providers: int) -> None:
        """A paid request had so many providers asked."""
        self._asked += providers

    def count_degraded(self) -> None:
        """A request was led down a ladder at a limit."""
        self._degraded += 1

    def break_stream(self) -> None:
        """One stream broke off."""
        self._broken += 1

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
        self.before_look()
        return generate_latest(self.registry)

    def describe(self) -> list[Metric]:
        """Nothing is collected when it is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """What a scrape gets of the plain numbers."""
        requests = CounterMetricFamily(
            "hanse_gateway_requests",
            "Requests by operation and HTTP status; 499: the application left.",
            labels=("operation", "status"),
        )
        for (operation, status), count in self._requests.items():
            requests.add_metric((operation, str(status)), count)
        yield requests
        yield _count_one(
            "hanse_gateway_fees_base_units",
            "Fees of answers whose receipts were verified.",
            self._fees,
        )
        yield _count_by(
            "hanse_gateway_model_fees_base_units",
            "The same by model; `other` once there are too many.",
            "model",
            self._model_fees,
        )
        yield _count_by(
            "hanse_gateway_structured",
            "Requests with a JSON schema: valid, repaired, elsewhere, default, stream, unmet.",
            "outcome",
            self._structured,
        )
        yield _count_by(
            "hanse_gateway_errors",
            "Paid requests that ended with an error, by its code.",
            "code",
            self._errors,
        )
        yield _count_one(
            "hanse_gateway_providers_asked",
            "Vouchers that were sent to providers: one a request, and one for each further try.",
            self._asked,
        )
        yield _count_one(
            "hanse_gateway_degraded",
            "Requests that a limit led down a ladder, to a smaller model or a free answer.",
            self._degraded,
        )
        yield _count_one(
            "hanse_gateway_streams_broken",
            "Streams that ended without [DONE] while the application was there.",
            self._broken,
        )


def _do_nothing() -> None:
    """Nobody counts behind."""


def _count_one(name: str, help_text: str, value: int) -> Metric:
    return CounterMetricFamily(name, help_text, value=value)


def _count_by(name: str, help_text: str, label: str, values: dict[str, int]) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family
