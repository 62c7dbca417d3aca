"""One paid answer: bytes handed through as they come, and a verified receipt at the end.

    answer = await hanse.request("/v1/chat/completions", body)
    async with answer:
        async for frame in answer.frames(): ...      # or: body = await answer.read()
    answer.receipt

The bytes are hashed as they pass, never decoded and encoded again. A stream's `[DONE]` is handed on
once the receipt before it was verified and counted, so whoever sees the end can rely on it. Leaving
early hangs up; the receipt of what was delivered is fetched behind (`hanse.sdk.purchase.resume`).

Source: `docs/protocol.md`, sections "On the wire" and "Streams that are cut".
"""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol, Self

from hanse.market import Choice
from hanse.protocol.errors import HanseError, RequestError, TransientError, VerificationError
from hanse.protocol.hashing import ResponseHasher, hash_response
from hanse.protocol.limits import RESPONSE_BYTES_MAX
from hanse.protocol.messages import Offer, SignedReceipt, SignedVoucher
from hanse.protocol.signatures import Address, Hash32
from hanse.protocol.wire import RECEIPT_COMMENT, RECEIPT_HEADER, decode_receipt, is_done
from hanse.sdk.purchase.checking import (
    USAGE_MARK,
    CheckedReceipt,
    Received,
    Terms,
    is_usage_frame,
)
from hanse.sdk.transport import BrokenError, Response, read_body
from hanse.sdk.transport.frames import FrameSplitter, is_data
from hanse.settlement.keeping.keeper import Capturing

NOTHING = Received(None, 0, False)


class Settler(Protocol):
    """Who counts an answer's receipt. `hanse.sdk.purchase.buyer.Buyer` fulfils it."""

    async def settle(
        self, terms: Terms, signed: SignedReceipt | None, received: Received
    ) -> CheckedReceipt:
        """Check and count the receipt of an answer that has ended; raises VerificationError."""
        ...

    def abandon(
        self, terms: Terms, received: Received, reason: str, seen: Sequence[SignedReceipt] = ()
    ) -> None:
        """Note what came of an answer that was cut, and fetch its receipt behind.

        Receipts that were `seen` in a malformed one are not counted and may be evidence.
        """
        ...


class Answer:
    """See the module. Made by `Hanse.request`."""

    def __init__(
        self,
        settler: Settler,
        terms: Terms,
        response: Response,
        *,
        is_stream: bool,
        trace: Capturing | None = None,
        asks_usage: bool = False,
        hides_usage: bool = False,
    ) -> None:
        self._settler = settler
        self._terms = terms
        self._response = response
        self._hasher = ResponseHasher()
        self._trace = trace
        self._usage_source: bytes | None = None
        self._asks_usage, self._hides_usage = asks_usage, hides_usage
        self._is_open, self._is_taken = True, False
        self._signed: SignedReceipt | None = None  # of a stream
        self._seen: list[SignedReceipt] = []
        self._odd: HanseError | None = None  # behind what was handed on last
        self._splitter = FrameSplitter()
        self.is_stream = is_stream
        self.provider: Address = terms.offer.provider
        self.receipt: CheckedReceipt | None = None
        self.choice: Choice | None = None  # how its provider was chosen

    @property
    def offer(self) -> Offer:
        """At whose prices."""
        return self._terms.offer

    @property
    def voucher(self) -> SignedVoucher:
        """What was signed for it."""
        return self._terms.voucher

    @property
    def request_id(self) -> Hash32:
        """Under which it is found again."""
        return self._terms.voucher.request.request_id

    async def read(self) -> bytes:
        """The whole body, verified and counted.

        Raises:
            TransientError: it broke off; what it cost is found out behind.
            VerificationError: it is not what was signed, or came without a receipt.
        """
        self._take(stream=False)
        try:
            body = await read_body(self._response, RESPONSE_BYTES_MAX)
            header = self._response.find_header(RECEIPT_HEADER)
            signed = decode_receipt(header) if header else None
        except BaseException as error:
            self._abandon(error)
            raise
        self._end()
        received = Received(hash_response(body), len(body), True, body)
        if self._trace is not None:
            self._trace.add(body)
        self.receipt = await self._settler.settle(self._terms, signed, received)
        self._end_trace()
        self.receipt.verify_true()
        return body

    async def frames(self) -> AsyncIterator[bytes]:
        """The stream's data frames as they come, `[DONE]` last.

        A provider's engine that breaks sends a frame with an `error` and no `[DONE]` after it.

        Raises:
            TransientError: the stream broke off.
            VerificationError: it is not what was signed, or came without a receipt.
        """
        self._take(stream=True)
        try:
            while batch := await self.read_batch():
                for frame in batch:
                    yield frame
        finally:
            await self.close()

    async def read_batch(self) -> list[bytes]:
        """The next ones, those that came together in one list; empty after the last.

        Whoever hands on many saves by it, and calls `close` if it leaves before the end. Frames
        that came with the end are kept back with it until the receipt is stored.
        """
        if not self._is_taken:
            self._take(stream=True)
        batch: list[bytes] = []
        is_last = not self._is_open
        try:
            while not (batch or is_last):
                if self._odd is not None:
                    raise self._odd
                is_last = self._read_chunk(await self._response.read(), batch)
        except BaseException as error:
            if isinstance(error, HanseError):
                self._odd = error  # who asks again must not take it for an end
            self._abandon(error)
            raise
        if self._is_open and is_last:
            try:
                await self._settle_stream()
            except HanseError as error:
                self._odd, batch = error, batch[:-1]
        if self._odd is not None and not batch:
            raise self._odd
        return batch

    def _read_chunk(self, chunk: bytes, batch: list[bytes]) -> bool:
        """Add the data frames that these bytes complete; whether they are the last."""
        if not chunk:
            if self._signed is None or self._splitter.rest_bytes:
                raise BrokenError(
                    f"the stream of {self.provider} broke off "
                    f"after {self._hasher.length_bytes} bytes"
                )
            return True
        is_last = False
        try:
            is_last = self._read_frames(chunk, batch)
        except VerificationError as error:
            self._odd = error  # what came before the nonsense is the caller's
        if batch:
            self._count(batch)
        return is_last

    async def close(self) -> None:
        """Hang up if it is still coming; never fails, and may be called twice."""
        if self._is_open:
            self._abandon(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _end_trace(self) -> None:
        """Also of an answer that is not what was signed: that is when it is needed."""
        if self._trace is not None and self.receipt is not None:
            self._trace.end(self.receipt.signed)

    def _read_frames(self, chunk: bytes, batch: list[bytes]) -> bool:
        """Add the data frames that this chunk completes; whether the stream has ended."""
        frames = self._splitter.feed(chunk)
        if self._splitter.is_plain and self._signed is None:
            count = 0
            for frame in frames:  # of one line, so whatever begins as data is data
                if frame[:7] != b"data: {":
                    break
                count += 1
            batch += frames[:count]
            frames = frames[count:]
        for frame in frames:
            if not is_data(frame):
                if frame.startswith(RECEIPT_COMMENT):
                    self._signed = self._read_receipt(frame)
            elif is_done(frame):
                batch.append(frame)
                return True
            else:
                if self._signed is not None:
                    raise VerificationError(
                        "response_malformed", "the stream goes on after its receipt"
                    )
                batch.append(frame)
        return False

    async def _settle_stream(self) -> None:
        received = self._get_received(is_complete=True)
        try:
            self.receipt = await self._settler.settle(self._terms, self._signed, received)
            if self._trace is not None:
                self._end_trace()
        finally:
            self._end()
        self.receipt.verify_true()

    def _count(self, batch: list[bytes]) -> None:
        """Hash and note what came; takes a usage frame out that the caller has not asked for."""
        joined = batch[0] if len(batch) == 1 else b"".join(batch)
        self._hasher.update(joined)
        if self._trace is not None:
            self._trace.add(joined)
        if self._hasher.length_bytes > RESPONSE_BYTES_MAX:
            raise BrokenError(f"the stream has more than {RESPONSE_BYTES_MAX} bytes")
        if USAGE_MARK in joined:  # some engines write it, empty, into every frame
            self._usage_source = [frame for frame in batch if USAGE_MARK in frame][-1]
            if self._hides_usage:
                batch[:] = [f for f in batch if USAGE_MARK not in f or not is_usage_frame(f)]

    def _read_receipt(self, frame: bytes) -> SignedReceipt:
        try:
            text = frame[len(RECEIPT_COMMENT) :].decode("ascii")
        except UnicodeDecodeError:
            raise VerificationError("receipt_invalid", "the receipt is not base64url") from None
        self._seen.append(decode_receipt(text))
        if len(self._seen) > 1:
            raise VerificationError("response_malformed", "a stream with two receipts")
        return self._seen[0]

    def _get_received(self, *, is_complete: bool) -> Received:
        hasher = self._hasher
        source, owes = self._usage_source, self._asks_usage
        return Received(hasher.get_hash(), hasher.length_bytes, is_complete, source, owes)

    def _take(self, *, stream: bool) -> None:
        if stream != self.is_stream:
            raise RequestError(
                "usage", "a stream is read with frames(), a whole answer with read()"
            )
        if self._is_taken or not self._is_open:
            raise RequestError("usage", "this answer was read or closed already")
        self._is_taken = True

    def _abandon(self, error: BaseException | None) -> None:
        if not self._is_open:
            return
        self._end()
        if self._trace is not None:
            self._trace.close()
        received = self._get_received(is_complete=False) if self.is_stream else NOTHING
        seen: Sequence[SignedReceipt] = ()
        if isinstance(error, VerificationError):
            reason, seen = "what it sent is malformed", self._seen
        elif isinstance(error, TransientError):
            reason = error.message
        else:
            reason = ""  # the caller left; that is no fault of the provider's
        self._settler.abandon(self._terms, received, reason, seen)

    def _end(self) -> None:
        self._is_open = False
        self._response.close()
