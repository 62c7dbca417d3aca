"""One streamed answer: frames out, hash along, and an end that waits for the receipt.

Frames go out as the engine makes them, once the admission is durable. The engine's last chunk, the
one that says why the answer ended, is held back until the receipt is durable; then it leaves with
the receipt's comment and `[DONE]` in one write. So a caller that has seen the end can always get
the receipt, and a caller that has seen less owes for no more than it was sent. An answer that is
all there before its admission is durable leaves in one piece, and one commit does for both.

| what happens | frames | receipt |
| --- | --- | --- |
| the answer ends | all, receipt comment, [DONE] | the engine's reason, all usage |
| the caller leaves, or we are stopped | those handed over | `cancelled`, usage of those |
| the engine breaks or hangs after a frame | an error frame, receipt comment | `error`, those sent |
| the same before any frame | none; status and error body | `error`, 0 |

Source: `docs/protocol.md`, section "Streams that are cut".
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from types import TracebackType

from hanse.engines import Chunk
from hanse.protocol.commitments.tree import Entry
from hanse.protocol.errors import TransientError
from hanse.protocol.hashing import DONE_FRAME
from hanse.protocol.messages import FinishReason, Usage
from hanse.protocol.wire import RECEIPT_COMMENT, to_base64url
from hanse.provider.finishing import Finisher, PaidRequest
from hanse.provider.http import (
    EVENT_STREAM,
    NO_STORE,
    AnswerCutError,
    CallerStalledError,
    Receive,
    Scope,
    Send,
    encode_error,
    send_within,
)
from hanse.provider.sealing import SentBytes
from hanse.serving import Looks, watch_departure
from hanse.settlement import Admission, FinishedRequest
from hanse.store.database import Begun

KEEP_ALIVE = b": keep-alive\n\n"

_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [EVENT_STREAM, NO_STORE, (b"x-accel-buffering", b"no")],
}


class CallerWatch:
    """Cancels the task that serves once its caller has hung up, or its time is over.

    Used as `with watch:` around what may be interrupted. The cancellation that it causes is
    taken back on the way out, so the task can finish its books: `left` then says that the caller
    has gone, and TimeoutError that the time was over. That is `asyncio.timeout`, which costs 4 us,
    for the price of a place in a line.

    Attributes:
        left: whether the caller counts as gone.
        on_look: also called at each look, unless None.
    """

    def __init__(self, scope: Scope, receive: Receive, looks: Looks, limit_s: float) -> None:
        self.left = False
        self.on_look: Callable[[], None] | None = None
        self._state = scope.get("state", {})
        self._receive = receive
        self._looks = looks
        self._limit_s = limit_s
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False
        self._cuts = 0

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # it is awaited
        self._served = task
        self._cancelling = task.cancelling()
        self._loop = task.get_loop()
        self._ends_at = self._loop.time() + self._limit_s
        self._stop = watch_departure(self._state, self._receive, self.give_up)
        self._looks.begin(self._look)
        if self._limit_s <= self._looks.interval_s:
            self._time_the_end()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()
        self._looks.end(self._look)
        self.on_look = None  # whose object leads back here
        if self._timer is not None:
            self._timer.cancel()
        for _ in range(self._cuts):
            self._served.uncancel()
        others = self._served.cancelling() > self._cancelling
        if self._is_over and not (self.left or others) and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def give_up(self) -> None:
        """Treat the caller as gone."""
        self.left = True
        self._cut()

    def _end_time(self) -> None:
        self._is_over = True
        self._cut()

    def _cut(self) -> None:
        self._cuts += 1
        self._served.cancel()

    def _look(self) -> None:
        self._time_the_end()
        if self.on_look is not None:
            self.on_look()

    def _time_the_end(self) -> None:
        """Set a timer for the end of the time once it comes before the next look."""
        next_look = self._loop.time() + self._looks.interval_s
        if self._timer is None and next_look >= self._ends_at:
            self._timer = self._loop.call_at(self._ends_at, self._end_time)


class StreamedAnswer:
    """Sends one stream and finishes its request."""

    def __init__(
        self,
        finisher: Finisher,
        request: PaidRequest,
        admitted: Begun[Admission],
        send: Send,
        watch: CallerWatch,
    ) -> None:
        self._finisher = finisher
        self._request = request
        self._admitted = admitted
        self._send = send
        self._watch = watch
        self._sent = SentBytes(request.trace.add if request.trace else None)
        self._usage = Usage()
        self._proof: list[Entry] = []
        self._held: list[Chunk] = []
        self._started = False
        self._sends_begun = 0
        self._sends_done = 0
        self._seen: tuple[int, float] = (0, 0.0)
        self._stalled = False
        self._comment: asyncio.Task[None] | None = None

    async def run(self, chunks: AsyncGenerator[Chunk, None]) -> None:
        """Send the answer to its end and store its receipt.

        Raises:
            TransientError: `store_unavailable`, and nothing was sent yet.
            AnswerCutError: the same after frames were sent: neither receipt nor [DONE] follow.
            CallerStalledError: the caller reads no more.
            asyncio.CancelledError: this process is being stopped; the receipt is stored.
        """
        cut: Exception | asyncio.CancelledError | None = None
        try:
            self._watch.on_look = self._look
            with self._watch:
                try:
                    await self._pass_on(chunks)
                finally:
                    await chunks.aclose()
        except (Exception, asyncio.CancelledError) as error:
            cut = error
        if self._comment is not None:
            self._comment.cancel()
            await asyncio.gather(self._comment, return_exceptions=True)
        try:
            if cut is None:
                await self._end_whole()
            elif self._started:
                await self._end_cut(cut)
            else:
                await self._finisher.finish_failed(self._request, self._admitted, self._send, cut)
        except TransientError as error:
            if self._started:
                raise AnswerCutError(error.code) from error
            raise
        if self._stalled:
            raise CallerStalledError("request_timeout")
        if isinstance(cut, asyncio.CancelledError) and not self._watch.left:
            raise cut

    async def _pass_on(self, chunks: AsyncGenerator[Chunk, None]) -> None:
        parts = self._finisher.parts
        async for chunk in chunks:
            if chunk.finish_reason is not None or self._held or self._can_wait(chunk):
                self._held.append(chunk)
                continue
            if not self._started:
                await self._start()
            self._time_first(chunk)
            self._sends_begun += 1
            await self._send({"type": "http.response.body", "body": chunk.data, "more_body": True})
            self._sends_done += 1
            # Counted once it is with the network: an interrupted send has sent nothing.
            self._take(chunk)
            parts.failpoint("frame")

    def _can_wait(self, chunk: Chunk) -> bool:
        """Whether the whole answer is there before the admission is durable: one commit does."""
        return chunk.ends_next and not self._started and not self._admitted.is_durable

    async def _end_whole(self) -> None:
        held: list[bytes] = []
        reason: FinishReason | None = None
        for chunk in self._held:
            self._time_first(chunk)
            self._take(chunk)
            held.append(chunk.data)
            reason = reason or chunk.finish_reason
        self._sent.add(DONE_FRAME)
        finished = await self._finish(reason or FinishReason.STOP)
        if not self._started:
            await self._start()
        await self._send_end(b"".join((*held, _to_comment(finished), DONE_FRAME)))

    async def _end_cut(self, cut: Exception | asyncio.CancelledError) -> None:
        if isinstance(cut, asyncio.CancelledError):
            await self._finish(FinishReason.CANCELLED)
            return
        frame = b"data: " + encode_error(self._finisher.count_error(cut)) + b"\n\n"
        self._sent.add(frame)
        finished = await self._finish(FinishReason.ERROR)
        await self._send_end(frame + _to_comment(finished))

    def _finish(self, reason: FinishReason) -> Awaitable[FinishedRequest]:
        response_hash, tail = self._sent.get_hash_and_tail()
        return self._finisher.finish(
            self._request,
            self._admitted,
            usage=self._usage,
            response_hash=response_hash,
            reason=reason,
            answer=tail,
            proof=self._proof,
        )

    def _take(self, chunk: Chunk) -> None:
        self._sent.add(chunk.data)
        self._usage = chunk.usage
        if chunk.proof:
            self._proof += chunk.proof

    def _time_first(self, chunk: Chunk) -> None:
        if self._usage.output_tokens == 0 and chunk.usage.output_tokens:
            parts = self._finisher.parts
            parts.metrics.count_first_frame(parts.monotonic() - self._request.begun)

    async def _start(self) -> None:
        if not self._admitted.is_durable:
            await self._admitted.commit()
        if not self._started:  # by a comment, meanwhile
            self._started = True
            await self._send(_START)

    def _send_end(self, body: bytes) -> Awaitable[None]:
        message = {"type": "http.response.body", "body": body}
        return send_within(self._send, message, self._finisher.parts.limits.send_stall_s)

    def _look(self) -> None:
        """Bridge a silent engine with a comment; give up on a caller that reads nothing."""
        if self._stalled:
            return
        now = asyncio.get_running_loop().time()
        begun, since = self._seen
        if self._sends_begun != begun:
            self._seen = (self._sends_begun, now)
        elif self._sends_begun == self._sends_done:
            self._comment = asyncio.create_task(self._send_comment())
        elif now - since >= self._finisher.parts.limits.send_stall_s:
            self._stalled = True
            self._watch.give_up()

    async def _send_comment(self) -> None:
        if not self._started:
            await self._start()
        await self._send({"type": "http.response.body", "body": KEEP_ALIVE, "more_body": True})


def _to_comment(finished: FinishedRequest) -> bytes:
    return RECEIPT_COMMENT + to_base64url(finished.json).encode() + b"\n\n"
