"""Counts of second tries, continuations, hedges, fallbacks and the queue, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class StayingFigures:
    """Counters of one gateway's staying up, in the gateway's registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._turns = Counter(
            "hanse_gateway_turns",
            "Answers that a provider began and failed: restarted, continued, lost.",
            ("kind",),
            registry=registry,
        )
        self._hedges = Counter(
            "hanse_gateway_hedges",
            "Second providers asked for a late first token, and those that won.",
            ("outcome",),
            registry=registry,
        )
        self._fallbacks = Counter(
            "hanse_gateway_fallbacks",
            "Answers that did not come from the market: local, canned.",
            ("kind",),
            registry=registry,
        )
        self._refused = Counter(
            "hanse_gateway_queue_refused",
            "Requests that found no place at work or in the queue in time.",
            ("class",),
            registry=registry,
        )
        self._waiting = Gauge(
            "hanse_gateway_queue_waiting", "Requests in the queue.", ("class",), registry=registry
        )

    def count_turn(self, kind: str) -> None:
        """A provider failed an answer that it had begun: `restarted`, `continued` or `lost`."""
        self._turns.labels(kind).inc()

    def count_hedge(self, outcome: str) -> None:
        """A hedge was `asked`, `won`, or `both` came in at the same moment."""
        self._hedges.labels(outcome).inc()

    def count_fallback(self, kind: str) -> None:
        """An answer came from `local` or was `canned`."""
        self._fallbacks.labels(kind).inc()

    def count_refused(self, kind: str) -> None:
        """The queue had no place for a request of this class."""
        self._refused.labels(kind).inc()

    def show_waiting(self, kind: str, count: int) -> None:
        """So many requests of this class wait."""
        self._waiting.labels(kind).set(count)
