"""Requests under way: which there are, where, since when; and what their ends tell of speed.

A request is under way from when it is sent until its receipt was counted, or until others find out
about it (`hanse.sdk.purchase.resume`). A broker sends a stream's head with its first token, so the
time to the head is that to the first token; nothing is measured a frame.
"""

from collections.abc import Callable, Iterator, Set

import msgspec

from hanse.market import MeasuredBook, PresenceBook
from hanse.protocol.messages import FinishReason, Offer, Receipt
from hanse.protocol.signatures import Address


class _Sent(msgspec.Struct):
    service: tuple[Address, int]
    started: float
    is_stream: bool
    head_s: float = 0.0


class UnderWay(Set[str]):
    """The ids of requests under way."""

    def __init__(
        self, presence: PresenceBook, measured: MeasuredBook, clock: Callable[[], float]
    ) -> None:
        self._presence = presence
        self._measured = measured
        self._clock = clock
        self._sent: dict[str, _Sent] = {}

    def __contains__(self, request_id: object) -> bool:
        return request_id in self._sent

    def __iter__(self) -> Iterator[str]:
        return iter(self._sent)

    def __len__(self) -> int:
        return len(self._sent)

    def begin(self, request_id: str, offer: Offer, *, is_stream: bool) -> None:
        """It is being sent."""
        service = (offer.provider, offer.service_id)
        self._sent[request_id] = _Sent(service, self._clock(), is_stream)
        self._presence.begin(service)

    def note_head(self, request_id: str) -> float:
        """Its answer has begun; returns the seconds since it was sent."""
        sent = self._sent[request_id]
        sent.head_s = self._clock() - sent.started
        return sent.head_s

    def measure(self, request_id: str, receipt: Receipt) -> None:
        """Its answer has ended well."""
        sent = self._sent.get(request_id)
        if sent is None or receipt.finish_reason is FinishReason.ERROR:
            return
        total_s, tokens = self._clock() - sent.started, receipt.usage.output_tokens
        if sent.is_stream:
            self._measured.report_stream(sent.service, sent.head_s, total_s, tokens)
        else:
            self._measured.report_whole(sent.service, total_s, tokens)

    def discard(self, request_id: str) -> None:
        """It is not under way any more; may be said twice."""
        sent = self._sent.pop(request_id, None)
        if sent is not None:
            self._presence.end(sent.service)
