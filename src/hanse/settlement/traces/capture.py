"""The bytes of one request while it is being answered, within a bound over all of them.

`hanse.settlement.traces.writer.TraceWriter` begins a capture and takes it when its answer ends.
"""

from dataclasses import dataclass
from typing import Protocol

from hanse.protocol.messages import SignedReceipt, SignedVoucher
from hanse.protocol.signatures import Hash32
from hanse.settlement.traces.document import RESPONSE_BYTES_TRACED_MAX, Side, Trace


@dataclass(frozen=True)
class TraceLimits:
    """Bounds of one writer.

    Attributes:
        bytes_max: captured and waiting, together; a broker's memory for traces.
        queue_max: traces that wait for the store.
        workers: objects on their way to the store at once.
        pauses_s: before each further try to store one.
        drain_s: at the end, for what still waits; then it is dropped.
        pending_s: a note that is pending this long was left by a crash; longer than all tries.
        sweep_interval_s: between looks for what is too old or left over.
    """

    bytes_max: int = 256 * 1024 * 1024
    queue_max: int = 1_024
    workers: int = 4
    pauses_s: tuple[float, ...] = (0.5, 5.0)
    drain_s: float = 10.0
    pending_s: int = 900
    sweep_interval_s: float = 600.0


@dataclass(frozen=True)
class TraceSettings:
    """What an operator decides about traces.

    Attributes:
        location: folder, or `s3://bucket/prefix?endpoint=...&region=...`.
        encryption_key: this side's public key.
        days: how long a trace is kept; 0 for ever.
        limits: of the writer.
    """

    location: str
    encryption_key: Hash32
    days: int = 30
    limits: TraceLimits = TraceLimits()


class CaptureOwner(Protocol):
    """Who holds the bound, and takes what was captured."""

    side: Side

    def reserve(self, length_bytes: int) -> bool:
        """Take room for so many bytes, if there is."""
        ...

    def give_back(self, length_bytes: int) -> None:
        """Give room back."""
        ...

    def take(self, trace: Trace, other_key: Hash32, length_bytes: int) -> None:
        """Queue a trace, with its room."""
        ...

    def count_drop(self, reason: str) -> None:
        """Count a request that leaves no trace."""
        ...


class TraceCapture:
    """The bytes of one request while it is being answered."""

    __slots__ = ("_body", "_bytes", "_chunks", "_other_key", "_path", "_signed", "_writer")

    def __init__(
        self,
        writer: CaptureOwner,
        signed: SignedVoucher,
        path: str,
        body: bytes,
        other_key: Hash32,
    ) -> None:
        self._writer: CaptureOwner | None = writer
        self._signed, self._path, self._body = signed, path, body
        self._other_key = other_key
        self._chunks: list[bytes] = []
        self._bytes = len(body)

    def add(self, data: bytes) -> None:
        """Bytes of the answer, in order."""
        writer = self._writer
        if writer is None:
            return
        self._bytes += len(data)
        self._chunks.append(data)
        if self._bytes - len(self._body) > RESPONSE_BYTES_TRACED_MAX:
            self._bytes -= len(data)
            self._drop("too_large")
        elif not writer.reserve(len(data)):
            self._bytes -= len(data)
            self._drop("no_memory")

    def end(self, receipt: SignedReceipt) -> None:
        """The receipt is durable: hand the trace over. Returns at once, and never raises."""
        writer, self._writer = self._writer, None
        if writer is not None:
            response = b"".join(self._chunks)
            trace = Trace(
                writer.side, self._signed.request, receipt, self._path, self._body, response
            )
            writer.take(trace, self._other_key, self._bytes)
        self._chunks = []

    def close(self) -> None:
        """Let go of it, unless it has ended; may be called twice."""
        if self._writer is not None:
            self._writer.give_back(self._bytes)
            self._writer, self._chunks = None, []

    def _drop(self, reason: str) -> None:
        if self._writer is not None:
            self._writer.count_drop(reason)
        self.close()

    def __del__(self) -> None:
        self.close()  # an answer that nobody read must not hold its share for ever
