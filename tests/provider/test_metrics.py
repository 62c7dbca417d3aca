"""What `/metrics` says is, to the byte, what the client library's own metrics would say."""

import re

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from hanse.engines import Operation
from hanse.protocol.messages import FinishReason, Usage
from hanse.provider.metrics import BrokerMetrics

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
FINISHED = [
    (Operation.CHAT, FinishReason.STOP, Usage(600, 20, 16), 90, 0.004),
    (Operation.CHAT, FinishReason.STOP, Usage(1, 0, 0), 0, 0.005),  # on a bound
    (Operation.COMPLETION, FinishReason.LENGTH, Usage(0, 0, 7), 10**9, 0.0),
    (Operation.EMBEDDINGS, FinishReason.ERROR, Usage(), 0, 300.1),  # above all
    (Operation.CHAT, FinishReason.CANCELLED, Usage(5, 5, 5), 3, 12.34),
]


class LibrarysOwn:
    """The same figures, each one kept by the library."""

    def __init__(self) -> None:
        self.registry = r = CollectorRegistry()
        names = ("operation", "finish_reason")
        self.requests = Counter("hanse_broker_requests", "Receipted requests.", names, registry=r)
        for operation in Operation:
            for reason in FinishReason:
                self.requests.labels(operation.value, reason.name.lower())
        self.tokens = Counter("hanse_broker_tokens", "Metered tokens.", ("kind",), registry=r)
        for kind in ("input", "cached", "output"):
            self.tokens.labels(kind)
        self.fees = Counter("hanse_broker_fees", "Fees receipted, base units.", registry=r)
        self.refusals = Counter("hanse_broker_refusals", "Error answers.", ("code",), registry=r)
        self.defects = Counter("hanse_broker_defects", "Unexpected exceptions.", registry=r)
        self.first = Histogram(
            "hanse_broker_first_frame_seconds",
            "From the request's head to the first frame.",
            buckets=BUCKETS_S,
            registry=r,
        )
        self.total = Histogram(
            "hanse_broker_request_seconds",
            "From the request's head to its stored receipt.",
            buckets=BUCKETS_S,
            registry=r,
        )
        words = "Requests admitted, at work."
        self.in_flight = Gauge("hanse_broker_in_flight", words, registry=r)
        words = "Owed, not yet seen on chain, base units."
        self.unsettled = Gauge("hanse_broker_unsettled", words, registry=r)

    def count(self, operation, reason, usage, fee, total_s) -> None:
        self.requests.labels(operation.value, reason.name.lower()).inc()
        self.tokens.labels("input").inc(usage.input_tokens)
        self.tokens.labels("cached").inc(usage.cached_tokens)
        self.tokens.labels("output").inc(usage.output_tokens)
        self.fees.inc(fee)
        self.unsettled.inc(fee)
        self.total.observe(total_s)


def read_families(text: bytes) -> list[str]:
    """The text up to the gauges that only the library keeps, without the times of creation."""
    begun = re.sub(r"(_created(?:\{[^}]*\})?) [0-9.e+]+\n", r"\1 T\n", text.decode())
    return begun.partition("# HELP hanse_broker_chain_block")[0].splitlines()


@pytest.mark.parametrize("scrapes", [1, 2])
def test_the_text_is_the_librarys_own(scrapes):
    ours, theirs = BrokerMetrics(), LibrarysOwn()
    assert read_families(ours.render()) == read_families(generate_latest(theirs.registry))
    for _ in range(scrapes):  # nothing is counted twice, or lost, by being looked at
        for finished in FINISHED:
            ours.count_finished(*finished)
            theirs.count(*finished)
        for first_s in (0.002, 0.0100001, 1_000.0):
            ours.count_first_frame(first_s)
            theirs.first.observe(first_s)
        ours.in_flight += 2
        theirs.in_flight.inc(2)
        ours.count_refusal("overloaded")
        theirs.refusals.labels("overloaded").inc()
        ours.count_defect()
        theirs.defects.inc()
        assert read_families(ours.render()) == read_families(generate_latest(theirs.registry))
    ours.unsettled = 17  # as the books say, whatever was counted
    theirs.unsettled.set(17)
    shown = read_families(ours.render())
    assert shown == read_families(generate_latest(theirs.registry))
    assert f'hanse_broker_tokens_total{{kind="output"}} {28.0 * scrapes}' in shown
    assert "hanse_broker_unsettled 17.0" in shown
