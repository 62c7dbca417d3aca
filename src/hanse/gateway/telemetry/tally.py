"""Requests, fees and times by provider and by model, and the newest requests, for the live view.

In memory and bounded: what was asked for least lately makes room. Since a restart it is empty; the
books and Prometheus remember longer.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any

from hanse.gateway.exchange import STATUS_GONE
from hanse.gateway.telemetry.record import RequestRecord, is_served

PROVIDERS_MAX = 256
"""Providers that are counted apart."""

MODELS_MAX = 64
"""Models that are counted apart, here and in metrics; further ones are `other`."""

RECENT_MAX = 32
"""Newest requests that the live view shows."""

OTHER_MODEL = "other"

_WEIGHT = 0.1


@dataclass(slots=True)
class _Sum:
    requests: int = 0
    failed: int = 0
    fee: int = 0
    first_ms: float | None = None
    last_at: float = 0.0

    def add(self, record: RequestRecord, fee: int, failed: int) -> None:
        self.requests += 1
        self.failed += failed
        self.fee += fee
        self.last_at = record.at
        if record.first_ms is not None:
            mean = self.first_ms
            self.first_ms = (
                record.first_ms if mean is None else mean + _WEIGHT * (record.first_ms - mean)
            )

    def to_document(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "failed": self.failed,
            "fee": str(self.fee),
            "first_ms": None if self.first_ms is None else round(self.first_ms, 1),
            "last_at": round(self.last_at, 3),
        }


class Tally:
    """What one gateway did since its start.

    Attributes:
        requests: paid requests that have ended.
        failed: of them, those that were not served, though the application waited for them.
        fee: base units paid.
        recent: the newest, the newest last.
    """

    def __init__(self) -> None:
        self.requests = self.failed = self.fee = 0
        self.recent: deque[RequestRecord] = deque(maxlen=RECENT_MAX)
        self._providers: OrderedDict[str, _Sum] = OrderedDict()
        self._models: dict[str, _Sum] = {}

    def add(self, record: RequestRecord, fee: int) -> None:
        """One paid request has ended."""
        has_left = record.status == STATUS_GONE  # which is no failure of anybody's
        failed = int(not is_served(record) and not has_left)
        self.requests += 1
        self.failed += failed
        self.fee += fee
        self.recent.append(record)
        if record.provider:
            _get_sum(self._providers, record.provider).add(record, fee, failed)
            self._providers.move_to_end(record.provider)
            if len(self._providers) > PROVIDERS_MAX:
                self._providers.popitem(last=False)
            # only names that somebody answered to: an application can make up any other
            _get_sum(self._models, self.get_label(record.model)).add(record, fee, failed)

    def get_label(self, model: str) -> str:
        """The model's name, or `other` once there are too many."""
        if model in self._models or len(self._models) < MODELS_MAX:
            return model
        return OTHER_MODEL

    def to_document(self) -> dict[str, Any]:
        """Amounts as text, the busiest first."""
        return {
            "requests": self.requests,
            "failed": self.failed,
            "fee": str(self.fee),
            "providers": _list(self._providers, "provider"),
            "models": _list(self._models, "model"),
        }


def _get_sum(sums: dict[str, _Sum], name: str) -> _Sum:
    found = sums.get(name)
    if found is None:
        found = sums[name] = _Sum()
    return found


def _list(sums: dict[str, _Sum], name: str) -> list[dict[str, Any]]:
    rows = sorted(sums.items(), key=lambda pair: -pair[1].requests)
    return [{name: key, **found.to_document()} for key, found in rows]
