"""What is known of one request once it has ended: never content, never a key's text.

A `Seen` travels with a request from its head to its end; each step that learns something writes it
there. `RequestRecord` is what remains: a line of the access log, the attributes of a span, a row of
`hanse top`.
"""

from collections.abc import Callable

import msgspec

from hanse.market.stages import Stages

NAME_CHARS = 80
"""Of a model's name in a record; longer ones are cut."""


class Seen(Stages):
    """One request at work.

    Attributes:
        began_s: when it came, by its clock.
        headed_s: when the answer's first part left; 0 before.
        operation: its name.
        kind: its class in the queue.
        model: as asked for; empty until the body was read.
        provider: who answered in the end; empty if nobody did.
        fee: base units of all its receipts.
        structured: what came of its schema; empty without one.
        error: code of what went wrong; empty if nothing did.
    """

    __slots__ = (
        "began_s",
        "error",
        "fee",
        "headed_s",
        "kind",
        "model",
        "operation",
        "provider",
        "structured",
    )

    def __init__(self, now: Callable[[], float], began_s: float, operation: str) -> None:
        # as `Stages` begins; one call less a request
        self.now = now
        self.taken = []
        self.traceparent = ""
        self.began_s = began_s
        self.operation = operation
        self.headed_s = 0.0
        self.kind = self.model = self.provider = self.structured = self.error = ""
        self.fee = 0


class RequestRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request that has ended.

    Attributes:
        request_id: also in the answer's header `x-request-id`.
        key: id of its API key.
        operation: its name.
        status: of HTTP; 499 if the application left.
        sent_bytes: of the answer's body.
        ms: from its head to its last byte.
        at: unix seconds of its end.
        kind: its class: interactive, ambient or background.
        model, provider: as in `Seen`.
        fee: base units, as text.
        first_ms: until the answer's first part left.
        asked: providers that were asked.
        structured, error: as in `Seen`.
        degraded: the step of a ladder that was taken at a limit.
        is_broken: whether a stream ended without its `[DONE]`.
    """

    request_id: str
    key: str | None
    operation: str
    status: int
    sent_bytes: int
    ms: float
    at: float = 0.0
    kind: str = msgspec.field(default="", name="class")
    model: str = ""
    provider: str = ""
    fee: str = ""
    first_ms: float | None = None
    asked: int = 0
    structured: str = ""
    error: str = ""
    degraded: str = ""
    is_broken: bool = False


def is_served(record: RequestRecord) -> bool:
    """Whether the application got what it asked for."""
    return record.status == 200 and not record.is_broken
