"""Prometheus metrics of one broker, in a registry of its own.

Labels are from closed sets (operation, error code), so a caller cannot make series. Nothing here
names a user.

What every request counts are plain numbers that only the event loop's thread changes: the library
takes a lock and about a microsecond for each. It gets them when it is scraped.
"""

from bisect import bisect_left
from collections.abc import Hashable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from hanse.engines import Operation
from hanse.protocol.messages import FinishReason, Usage
from hanse.settlement.money.places import sum_by_code, sum_by_place
from hanse.settlement.money.provider_money import ProviderMoney
from hanse.settlement.netting.plan import Reason, SettlementPlan
from hanse.settlement.netting.round_storage import RoundTimes
from hanse.settlement.traces.writer import TraceWriter

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

_LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class _Counts(Collector):
    """Counters of the library, fed at each scrape with what was added to `new` since the last.

    `children` are the counters by their keys in `new`.
    """

    def __init__(
        self, registry: CollectorRegistry, counter: Counter, children: Mapping[Hashable, Counter]
    ) -> None:
        self.new: dict[Hashable, int] = dict.fromkeys(children, 0)
        self._counter = counter
        self._children = children
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """What a scrape gets."""
        for key, child in self._children.items():
            child.inc(self.new[key])
            self.new[key] = 0
        yield from self._counter.collect()


class _Durations(Collector):
    """A histogram of the library, whose numbers are kept here and put into what a scrape gets."""

    def __init__(self, registry: CollectorRegistry, name: str, words: str) -> None:
        self._histogram = Histogram(name, words, buckets=_LATENCY_BUCKETS_S, registry=None)
        self._counts = [0] * (len(_LATENCY_BUCKETS_S) + 1)
        self._sum_s = 0.0
        registry.register(self)

    def observe(self, seconds: float) -> None:
        """One observation."""
        self._counts[bisect_left(_LATENCY_BUCKETS_S, seconds)] += 1
        self._sum_s += seconds

    def collect(self) -> Iterator[Metric]:
        """What a scrape gets: the buckets up to each bound, how many in all, and their sum."""
        values = [*accumulate(self._counts), sum(self._counts), self._sum_s]
        for family in self._histogram.collect():
            shown = [
                sample._replace(value=value)
                for sample, value in zip(family.samples, values, strict=False)
            ]
            family.samples[: len(shown)] = shown  # behind them: since when it counts
            yield family


class BrokerMetrics:
    """Figures of one broker.

    Attributes:
        in_flight: requests admitted, at work.
        unsettled: owed, not yet seen on chain, base units.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.in_flight = self.unsettled = 0
        requests = Counter(
            "hanse_broker_requests",
            "Receipted requests.",
            ("operation", "finish_reason"),
            registry=None,
        )
        self._requests = _Counts(
            registry,
            requests,
            {
                (operation, reason): requests.labels(operation.value, reason.name.lower())
                for operation in Operation
                for reason in FinishReason
            },
        ).new
        tokens = Counter("hanse_broker_tokens", "Metered tokens.", ("kind",), registry=None)
        kinds = ("input", "cached", "output")
        self._tokens = _Counts(registry, tokens, {kind: tokens.labels(kind) for kind in kinds}).new
        fees = Counter("hanse_broker_fees", "Fees receipted, base units.", registry=None)
        self._fees = _Counts(registry, fees, {"": fees}).new
        self._refusals = Counter(
            "hanse_broker_refusals", "Error answers.", ("code",), registry=registry
        )
        self._defects = Counter("hanse_broker_defects", "Unexpected exceptions.", registry=registry)
        self._first = _Durations(
            registry,
            "hanse_broker_first_frame_seconds",
            "From the request's head to the first frame.",
        )
        self._total = _Durations(
            registry,
            "hanse_broker_request_seconds",
            "From the request's head to its stored receipt.",
        )
        Gauge(
            "hanse_broker_in_flight", "Requests admitted, at work.", registry=registry
        ).set_function(lambda: self.in_flight)
        Gauge(
            "hanse_broker_unsettled", "Owed, not yet seen on chain, base units.", registry=registry
        ).set_function(lambda: self.unsettled)
        self.chain_block = Gauge(
            "hanse_broker_chain_block", "Confirmed block of the chain view.", registry=registry
        )

        self._settlement = SettlementGauges(registry)
        words = "The provider's money by place, as of the last look, base units."
        self._money = Gauge("hanse_broker_money_base_units", words, ("place",), registry=registry)
        words = "What should have moved by now and did not, by kind."
        self._alarms = Gauge("hanse_broker_money_alarms", words, ("code",), registry=registry)

    def show_plan(self, plan: SettlementPlan, times: RoundTimes) -> None:
        """The last plan of a round of settlement."""
        self._settlement.show(plan, times)

    def show_money(self, money: ProviderMoney) -> None:
        """The provider's money as of the last look."""
        for place, amount in sum_by_place(money.places).items():
            self._money.labels(place).set(amount)
        for code, count in sum_by_code(money.alarms).items():
            self._alarms.labels(code).set(count)

    def count_finished(
        self, operation: Operation, reason: FinishReason, usage: Usage, fee: int, total_s: float
    ) -> None:
        """One stored receipt."""
        self._requests[operation, reason] += 1
        self._tokens["input"] += usage.input_tokens
        self._tokens["cached"] += usage.cached_tokens
        self._tokens["output"] += usage.output_tokens
        self._fees[""] += fee
        self.unsettled += fee
        self._total.observe(total_s)

    def count_first_frame(self, first_s: float) -> None:
        """One stream whose first frame was handed to the network."""
        self._first.observe(first_s)

    def count_refusal(self, code: str) -> None:
        """One error answer; `code` is a key of the error table."""
        self._refusals.labels(code).inc()

    def count_defect(self) -> None:
        """One exception that should not have been."""
        self._defects.inc()

    def watch_traces(self, traces: TraceWriter) -> None:
        """Show what becomes of the traces."""
        for name, meaning, read in (
            ("stored", "Traces stored.", lambda: traces.stored),
            ("dropped", "Requests that left no trace.", traces.dropped.total),
            ("held_bytes", "Captured and waiting for the store.", lambda: traces.held_bytes),
        ):
            gauge = Gauge(f"hanse_broker_traces_{name}", meaning, registry=self.registry)
            gauge.set_function(read)

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)


class SettlementGauges:
    """What the settlement scheduler saw last, and whether somebody should look."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def make(name: str, words: str, *labels: str) -> Gauge:
            return Gauge(f"hanse_broker_settlement_{name}", words, labels, registry=registry)

        self._value = make("value", "Could be claimed now, base units.")
        self._gas_price = make("gas_price_wei", "Of one gas when the plan was made.")
        decisions = make("decision", "1 for why it settles or waits, else 0.", "reason")
        self._decisions = {reason: decisions.labels(reason.value) for reason in Reason}
        self._last = make("last_seconds", "Unix time of the last settlement; 0 if never.")
        self._next = make("next_due_seconds", "Unix time by which one is due; 0 if none is.")
        self._overdue = make("overdue", "1 if one is due and did not happen: an alarm.")

    def show(self, plan: SettlementPlan, times: RoundTimes) -> None:
        """Set them all."""
        self._value.set(plan.value)
        self._gas_price.set(plan.market.gas_price_wei)
        for reason, gauge in self._decisions.items():
            gauge.set(reason is plan.reason)
        self._last.set(times.last_settled_s)
        self._next.set(plan.next_due_s)
        self._overdue.set(plan.overdue_s > 0)
