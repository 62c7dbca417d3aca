"""The gateway's figures for Prometheus, and its access log.

Neither ever holds content, keys or who asked what: an operation, a status, durations, fees. The
access log is one JSON object a line on the logger `hanse.gateway.access`, off unless a setting
turns it on.
"""

import logging
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

_ACCESS = logging.getLogger("hanse.gateway.access")
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


def log_access(line: dict[str, Any]) -> None:
    """Write one line of the access log."""
    _ACCESS.info("%s", msgspec.json.encode(line).decode())
