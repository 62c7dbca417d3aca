"""Takes answers that may be audited off the path of requests and keeps them; never delays one.

    async with AnswerKeeper(KeptAnswers(folder)) as keeper:
        capture = keeper.begin(offer, signed_voucher, path, body)   # None: nothing commits here
        capture.add(bytes); capture.end(signed_receipt)             # as with traces

An offer that does not commit costs one comparison. What is captured has a bound in bytes; files are
encrypted and written in a thread. What does not fit, and what cannot be written, is not audited:
counted by reason, and said once in the log, without contents.
"""

import asyncio
import logging
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol, Self

from hanse.protocol.commitments.promises import EMBEDDED
from hanse.protocol.errors import HanseError
from hanse.protocol.limits import REQUEST_BODY_BYTES_MAX
from hanse.protocol.messages import Offer, SignedReceipt, SignedVoucher
from hanse.protocol.signatures import ZERO_HASH, Hash32
from hanse.settlement.keeping.kept_answers import KeptAnswers
from hanse.settlement.traces.capture import TraceCapture
from hanse.settlement.traces.document import Side, Trace
from hanse.settlement.traces.writer import TraceWriter

CAPTURED_BYTES_MAX = 64 * 1024 * 1024
"""Of answers under way and of those that wait to be written, together."""

_log = logging.getLogger(__name__)


class Capturing(Protocol):
    """What takes the bytes of one request while it is answered."""

    def add(self, data: bytes) -> None:
        """Bytes of the answer, in order."""
        ...

    def end(self, receipt: SignedReceipt) -> None:
        """The receipt is durable."""
        ...

    def close(self) -> None:
        """Let go of it, unless it has ended."""
        ...


class Both:
    """Two captures of one answer: its trace, and what an audit of it needs."""

    def __init__(self, first: Capturing, second: Capturing) -> None:
        self._captures = (first, second)

    def add(self, data: bytes) -> None:
        """See `Capturing`."""
        for capture in self._captures:
            capture.add(data)

    def end(self, receipt: SignedReceipt) -> None:
        """See `Capturing`."""
        for capture in self._captures:
            capture.end(receipt)

    def close(self) -> None:
        """See `Capturing`."""
        for capture in self._captures:
            capture.close()


class AnswerKeeper:
    """See the module. It owns its captures (`CaptureOwner`)."""

    side = Side.USER

    def __init__(self, folder: KeptAnswers, captured_bytes_max: int = CAPTURED_BYTES_MAX) -> None:
        self.kept = 0
        self.dropped: Counter[str] = Counter()
        self._folder, self._bytes_max = folder, captured_bytes_max
        self._bytes = 0
        self._writes: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.wait_written()

    def begin(
        self, offer: Offer, signed: SignedVoucher, path: str, body: bytes
    ) -> TraceCapture | None:
        """Begin to keep one answer; None where its offer does not commit, or there is no room."""
        if offer.verifiability != EMBEDDED:
            return None
        if len(body) > REQUEST_BODY_BYTES_MAX or not self.reserve(len(body)):
            self.count_drop("no_memory")
            return None
        return TraceCapture(self, signed, path, body, ZERO_HASH)

    def reserve(self, length_bytes: int) -> bool:
        """Take room for so many bytes, if there is."""
        if self._bytes + length_bytes > self._bytes_max:
            return False
        self._bytes += length_bytes
        return True

    def give_back(self, length_bytes: int) -> None:
        """Give room back."""
        self._bytes -= length_bytes

    def take(self, trace: Trace, other_key: Hash32, length_bytes: int) -> None:
        """Write an answer behind, if its receipt commits to it; one that does not is no audit's."""
        if trace.receipt.receipt.commitment_root == ZERO_HASH:
            self.give_back(length_bytes)
            self.count_drop("uncommitted")
            return
        task = asyncio.get_running_loop().create_task(self._write(trace, length_bytes))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    def count_drop(self, reason: str) -> None:
        """Count an answer that is not kept; the first of each reason is said in the log."""
        if not self.dropped[reason]:
            _log.warning("an answer is not kept for audits: %s; others are only counted", reason)
        self.dropped[reason] += 1

    async def wait_written(self) -> None:
        """Until everything that ended so far is written or dropped."""
        while self._writes:
            await asyncio.wait(list(self._writes))

    async def _write(self, trace: Trace, length_bytes: int) -> None:
        try:
            if await asyncio.to_thread(self._folder.add, trace):
                self.kept += 1
            else:
                self.count_drop("folder_full")
        except HanseError as error:
            self.count_drop(error.code)
        finally:
            self.give_back(length_bytes)


async def open_keeper(folder: Path | None, stack: AsyncExitStack) -> AnswerKeeper | None:
    """A keeper over this folder until the stack closes; None without a folder."""
    if folder is None:
        return None
    return await stack.enter_async_context(AnswerKeeper(KeptAnswers(folder)))


def begin_captures(
    traces: TraceWriter | None,
    keeper: AnswerKeeper | None,
    offer: Offer,
    signed: SignedVoucher,
    path: str,
    body: bytes,
) -> Capturing | None:
    """What takes the bytes of an answer while it comes; None where nothing is kept of it."""
    trace = kept = None
    if traces is not None:
        trace = traces.begin(signed, path, body, offer.encryption_key)
    if keeper is not None:
        kept = keeper.begin(offer, signed, path, body)
    return Both(trace, kept) if trace is not None and kept is not None else trace or kept
