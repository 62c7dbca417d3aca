"""Histograms of how long stages take, for Prometheus and for quantiles.

The client library's own histogram takes a lock and about a microsecond an observation; a request
has some eight stages. Here an observation is a search in a tuple and two additions, which the event
loop's thread alone makes; the library sees the numbers when it is scraped.

Source: Prometheus' exposition formats, "Histograms and summaries".
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

BOUNDS_S = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 30.0, 60.0, 300.0,
)  # fmt: skip
"""Upper bounds of the buckets: matching takes a tenth of a millisecond, an answer minutes."""

STAGES_MAX = 16
"""Names of stages. They are our own; this keeps a mistake from becoming a thousand series."""

_COUNTS = len(BOUNDS_S) + 1


class Times(Collector):
    """One histogram a stage.

    Args:
        name: of the metric.
        help_text: what it is, for whoever reads `/metrics`.
        label: what a stage is called there.
    """

    def __init__(self, name: str, help_text: str, label: str = "stage") -> None:
        self._name = name
        self._help = help_text
        self._label = label
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def add(self, stage: str, seconds: float) -> None:
        """One observation."""
        try:
            self._counts[stage][bisect_left(BOUNDS_S, seconds)] += 1
            self._sums[stage] += seconds
        except KeyError:
            if len(self._counts) < STAGES_MAX:
                self._counts[stage] = [0] * _COUNTS
                self._sums[stage] = 0.0
                self.add(stage, seconds)

    def add_all(self, stages: Iterable[tuple[str, float]]) -> None:
        """Several observations."""
        counts, sums = self._counts, self._sums
        for stage, seconds in stages:
            if stage in counts:
                counts[stage][bisect_left(BOUNDS_S, seconds)] += 1
                sums[stage] += seconds
            else:
                self.add(stage, seconds)

    def get_count(self, stage: str) -> int:
        """Observations of a stage so far."""
        return sum(self._counts.get(stage, ()))

    def find_quantile_s(self, stage: str, share: float) -> float | None:
        """Where this share of the observations ends, within its bucket by proportion."""
        counts = self._counts.get(stage)
        if counts is None:
            return None
        wanted = share * sum(counts)
        seen = 0
        for index, count in enumerate(counts):
            if count and seen + count >= wanted:
                low = BOUNDS_S[index - 1] if index else 0.0
                high = BOUNDS_S[index] if index < len(BOUNDS_S) else low
                return low + (high - low) * (wanted - seen) / count
            seen += count
        return None

    def list_stages(self) -> list[str]:
        """Stages that were ever seen."""
        return list(self._counts)

    def describe(self) -> list[HistogramMetricFamily]:
        """Nothing is collected when it is registered."""
        return []

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """What a scrape gets."""
        family = HistogramMetricFamily(self._name, self._help, labels=(self._label,))
        for stage, counts in self._counts.items():
            total = 0
            buckets = []
            for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), counts, strict=True):
                total += count
                buckets.append((bound, total))
            family.add_metric((stage,), buckets, self._sums[stage])
        yield family
