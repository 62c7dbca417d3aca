"""Prometheus metrics of one recorder, in a registry of its own.

Labels are from closed sets (side, state, error code), so a caller cannot make series. Nothing here
names a user or a provider.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from hanse.protocol.records import Side

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class RecorderMetrics:
    """Counters of one recorder."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._entries = Counter(
            "hanse_recorder_entries",
            "Entries submitted, by side and what became of them at once.",
            ("side", "state"),
            registry=registry,
        )
        self._refusals = Counter(
            "hanse_recorder_refusals", "Error answers.", ("code",), registry=registry
        )
        self._commits = Counter(
            "hanse_recorder_commits", "Roots that are confirmed on the chain.", registry=registry
        )
        self._leaves = Counter(
            "hanse_recorder_leaves", "Receipts in confirmed roots.", registry=registry
        )
        self._gas = Counter(
            "hanse_recorder_commit_gas", "Gas of confirmed commits.", registry=registry
        )
        self.open_leaves = Gauge(
            "hanse_recorder_open_leaves", "Matched, and in no commit yet.", registry=registry
        )
        self.waiting = Gauge(
            "hanse_recorder_waiting_entries", "Submitted by one side only.", registry=registry
        )
        self.chain_block = Gauge(
            "hanse_recorder_chain_block", "The chain's head as last seen.", registry=registry
        )

    def count_entry(self, side: Side, state: str) -> None:
        """One entry of a submission."""
        self._entries.labels(side.name.lower(), state).inc()

    def count_refusal(self, code: str) -> None:
        """One error answer."""
        self._refusals.labels(code).inc()

    def count_commit(self, leaves: int, gas: int) -> None:
        """One confirmed commit."""
        self._commits.inc()
        self._leaves.inc(leaves)
        self._gas.inc(gas)

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)
