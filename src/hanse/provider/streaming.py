"""One streamed answer: frames out, hash along, and an end that waits for the receipt.

Frames go out as the engine makes them. The engine's last chunk, the one that says why the answer
ended, is held back until the receipt is durable; then it leaves with the receipt's comment and
`[DONE]` in one write. So a caller that has seen the end can always get the receipt, and a caller
that has seen less owes for no more than it was sent.

| what happens | frames | receipt |
| --- | --- | --- |
| the answer ends | all, receipt comment, [DONE] | the engine's reason, all usage |
| the caller leaves, or we are stopped | those handed over | `cancelled`, usage of those |
| the engine breaks or hangs after a frame | an error frame, receipt comment | `error`, those sent |
| the same before any frame | none; status and error body | `error`, 0 |

Source: `docs/protocol.md`, section "Streams that are cut".
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType

from hanse.engines import Chunk
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
from hanse.serving import watch_departure
from hanse.settlement import Admission, FinishedRequest

KEEP_ALIVE = b": keep-alive\n\n"

_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [EVENT_STREAM, NO_STORE, (b"x-accel-buffering", b"no")],
}


class CallerWatch:
    """Cancels the task that serves while its caller has hung up; `left` says that it did.

    Used as `async with watch:` around what may be interrupted. The cancellation that it causes is
    taken back on the way out, so the task can finish its books.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.left = False
        self._state = scope.get("state", {})
        self._receive = receive

    async def __aenter__(self) -> None:
        self._served = asyncio.current_task()
        self._stop = watch_departure(self._state, self._receive, self.give_up)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()
        if self.left and self._served is not None:
            self._served.uncancel()

    def give_up(self) -> None:
        """Treat the caller as gone."""
        self.left = True
        if self._served is not None:
            self._served.cancel()


class StreamedAnswer:
    """Sends one stream and finishes its request."""

    def __init__(
        self,
        finisher: Finisher,
        request: PaidRequest,
        admission: Admission,
        send: Send,
        watch: CallerWatch,
    ) -> None:
        self._finisher = finisher
        self._request = request
        self._admission = admission
        self._send = send
        self._watch = watch
        self._sent = SentBytes(request.trace.add if request.trace else None)
        self._usage = Usage()
        self._held: list[Chunk] = []
        self._started = False
        self._sends_begun = 0
        self._sends_done = 0
        self._seen: tuple[int, float] = (0, 0.0)
        self._stalled = False
        self._timer: asyncio.TimerHandle | None = None
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
            limit_s = self._finisher.parts.limits.request_time_s
            async with self._watch, asyncio.timeout(limit_s), aclosing(chunks):
                self._arm_timer()
                await self._pass_on(chunks)
        except (Exception, asyncio.CancelledError) as error:
            cut = error
        await self._disarm_timer()
        try:
            if cut is None:
                await self._end_whole()
            elif self._started:
                await self._end_cut(cut)
            else:
                await self._finisher.finish_failed(self._request, self._admission, self._send, cut)
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
            if chunk.finish_reason is not None or self._held:
                self._held.append(chunk)
                continue
            if not self._started:
                await self._start()
            if self._usage.output_tokens == 0 and chunk.usage.output_tokens:
                parts.metrics.count_first_frame(parts.monotonic() - self._request.begun)
            self._sends_begun += 1
            await self._send({"type": "http.response.body", "body": chunk.data, "more_body": True})
            self._sends_done += 1
            # Counted once it is with the network: an interrupted send has sent nothing.
            self._take(chunk)
            parts.failpoint("frame")

    async def _end_whole(self) -> None:
        for chunk in self._held:
            self._take(chunk)
        self._sent.add(DONE_FRAME)
        reasons = [chunk.finish_reason for chunk in self._held]
        finished = await self._finish((reasons or [None])[0] or FinishReason.STOP)
        if not self._started:
            await self._start()
        held = b"".join(chunk.data for chunk in self._held)
        await self._send_end(held + _to_comment(finished) + DONE_FRAME)

    async def _end_cut(self, cut: Exception | asyncio.CancelledError) -> None:
        if isinstance(cut, asyncio.CancelledError):
            await self._finish(FinishReason.CANCELLED)
            return
        frame = b"data: " + encode_error(self._finisher.count_error(cut)) + b"\n\n"
        self._sent.add(frame)
        finished = await self._finish(FinishReason.ERROR)
        await self._send_end(frame + _to_comment(finished))

    async def _finish(self, reason: FinishReason) -> FinishedRequest:
        return await self._finisher.finish(
            self._request,
            self._admission,
            usage=self._usage,
            response_hash=self._sent.get_hash(),
            reason=reason,
            answer=self._sent.get_tail(),
        )

    def _take(self, chunk: Chunk) -> None:
        self._sent.add(chunk.data)
        self._usage = chunk.usage

    async def _start(self) -> None:
        self._started = True
        await self._send(_START)

    async def _send_end(self, body: bytes) -> None:
        message = {"type": "http.response.body", "body": body}
        await send_within(self._send, message, self._finisher.parts.limits.send_stall_s)

    def _arm_timer(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._finisher.parts.limits.keep_alive_s, self._look)

    def _look(self) -> None:
        """Bridge a silent engine with a comment; give up on a caller that reads nothing."""
        now = asyncio.get_running_loop().time()
        begun, since = self._seen
        if self._sends_begun != begun:
            self._seen = (self._sends_begun, now)
        elif self._sends_begun == self._sends_done:
            self._comment = asyncio.create_task(self._send_comment())
        elif now - since >= self._finisher.parts.limits.send_stall_s:
            self._stalled = True
            self._watch.give_up()
            return
        self._arm_timer()

    async def _send_comment(self) -> None:
        if not self._started:
            await self._start()
        await self._send({"type": "http.response.body", "body": KEEP_ALIVE, "more_body": True})

    async def _disarm_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._comment is not None:
            self._comment.cancel()
            await asyncio.gather(self._comment, return_exceptions=True)


def _to_comment(finished: FinishedRequest) -> bytes:
    return RECEIPT_COMMENT + to_base64url(finished.json).encode() + b"\n\n"
