"""Prometheus metrics of one broker, in a registry of its own.

Labels are from closed sets (operation, error code), so a caller cannot make series. Nothing here
names a user.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from hanse.engines import Operation
from hanse.protocol.messages import FinishReason, Usage
from hanse.settlement.money.places import sum_by_code, sum_by_place
from hanse.settlement.money.provider_money import ProviderMoney
from hanse.settlement.netting.plan import Reason, SettlementPlan
from hanse.settlement.netting.round_storage import RoundTimes
from hanse.settlement.traces.writer import TraceWriter

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

_LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class BrokerMetrics:
    """Counters with their labels bound once, since a lookup by label costs on every request."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        requests = Counter(
            "hanse_broker_requests",
            "Receipted requests.",
            ("operation", "finish_reason"),
            registry=registry,
        )
        self._requests = {
            (operation, reason): requests.labels(operation.value, reason.name.lower())
            for operation in Operation
            for reason in FinishReason
        }
        tokens = Counter("hanse_broker_tokens", "Metered tokens.", ("kind",), registry=registry)
        self._input, self._cached, self._output = (
            tokens.labels(kind) for kind in ("input", "cached", "output")
        )
        self._fees = Counter("hanse_broker_fees", "Fees receipted, base units.", registry=registry)
        self._refusals = Counter(
            "hanse_broker_refusals", "Error answers.", ("code",), registry=registry
        )
        self._defects = Counter("hanse_broker_defects", "Unexpected exceptions.", registry=registry)
        self._first = Histogram(
            "hanse_broker_first_frame_seconds",
            "From the request's head to the first frame.",
            buckets=_LATENCY_BUCKETS_S,
            registry=registry,
        )
        self._total = Histogram(
            "hanse_broker_request_seconds",
            "From the request's head to its stored receipt.",
            buckets=_LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.in_flight = Gauge(
            "hanse_broker_in_flight", "Requests admitted, at work.", registry=registry
        )
        self.unsettled = Gauge(
            "hanse_broker_unsettled", "Owed, not yet seen on chain, base units.", registry=registry
        )
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
        self._requests[operation, reason].inc()
        if usage.input_tokens:
            self._input.inc(usage.input_tokens)
        if usage.cached_tokens:
            self._cached.inc(usage.cached_tokens)
        if usage.output_tokens:
            self._output.inc(usage.output_tokens)
        if fee:
            self._fees.inc(fee)
            self.unsettled.inc(fee)
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
