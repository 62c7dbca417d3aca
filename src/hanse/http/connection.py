"""One connection to an HTTP/1.1 server: one exchange at a time, with bounds on all that comes.

The parser (httptools, in its strict mode) keeps an unfinished header to itself, so bytes are
counted that bring the answer no further: heads, trailers and chunk extensions alike end at
`HEAD_BYTES_MAX`. A reader that falls behind stops the reading at `BUFFER_BYTES_MAX`.

One timer a connection looks after everything that has a time: it is set once and looks, when it
fires, what is due now. So an exchange sets no timer, and an arrival only notes its time.

Source: RFC 9112; llhttp's documentation.
"""

import asyncio
from collections.abc import Callable
from typing import cast

import httptools

from hanse.http.errors import HttpBrokenError, HttpConnectError, HttpTimeoutError
from hanse.http.gathering import Gathering
from hanse.http.response import HttpResponse, RawHeaders

HEAD_BYTES_MAX = 32 * 1024
"""Status line and headers: a receipt takes 2 kB, proxies add a few headers of their own."""

BUFFER_BYTES_MAX = 256 * 1024
"""Of a body that waits for its reader; one read of the network may come on top of it."""

BURST_TURNS_MAX = 16
"""Turns of the loop in which `read_burst` goes on taking what arrives; about half a millisecond."""

LINGER_S = 1.0
"""For the few bytes that end a body whose content has come, before its connection is hung up."""


class HttpConnection(asyncio.Protocol):
    """See the module.

    `on_end` is told after each exchange whether another may follow, `on_lost` when it is closed.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        idle_s: float,
        on_end: Callable[["HttpConnection", bool], None],
        on_lost: Callable[["HttpConnection"], None],
    ) -> None:
        self._loop = loop
        self._idle_s = idle_s
        self._on_end = on_end
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._waiter: asyncio.Future[None] | None = None
        self._is_busy = self._is_lingering = False
        self._heard_at = self._silence_s = self._ends_at = 0.0
        self._reset()

    def _reset(self) -> None:
        self._response: HttpResponse | None = None
        self._headers: RawHeaders = []
        self._parts: list[bytes] = []
        self.on_body = self._parts.append  # the parser's: one part of the body, of many
        self._parser = httptools.HttpResponseParser(self)
        self._size = 0
        self._idle_bytes = 0
        self._is_complete = False
        self._is_paused = False
        self._gathering: Gathering | None = None
        self._keeps_alive = False
        self._error: HttpBrokenError | None = None

    @property
    def is_open(self) -> bool:
        """Whether it can take a request."""
        return self._transport is not None and not self._transport.is_closing()

    async def exchange(self, request: bytes, *, silence_s: float, total_s: float) -> HttpResponse:
        """Send one request, already encoded, and wait for the head of its answer.

        Raises:
            HttpConnectError: it was closed before anything was sent.
            HttpBrokenError: no whole head came.
        """
        self._reset()
        self._is_busy = True
        self._heard_at = now = self._loop.time()
        self._ends_at = now + total_s
        self._silence_s = silence_s
        self._arm(now + min(silence_s, total_s))
        try:
            if self._transport is None:
                raise HttpConnectError("the connection was closed")
            self._transport.write(request)
            while self._response is None:
                if self._error is not None:
                    raise self._error
                await self._wait()
        except BaseException:
            self.end()
            raise
        return self._response

    async def read(self) -> bytes:
        """See `HttpResponse.read`."""
        while not self._parts and not self._is_complete:
            if self._error is not None:
                raise self._error
            await self._wait()
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._heard_at = self._loop.time()
            self._read_on()
        return data

    async def read_burst(self) -> bytes:
        """See `HttpResponse.read_burst`."""
        data = await self.read()
        for _ in range(BURST_TURNS_MAX):
            if self._is_complete:
                break
            await asyncio.sleep(0)
            if not self._parts:  # an error is for the next read to tell
                break
            data += await self.read()
        return data

    def set_silence(self, silence_s: float) -> None:
        """See `HttpResponse.set_silence`."""
        self._silence_s = silence_s
        self._arm(self._get_due())

    def gather(self, gather_s: float) -> None:
        """See `HttpResponse.gather`."""
        if gather_s <= 0 or self._transport is None or self._is_complete:
            return
        if self._transport.get_extra_info("ssl_object") is None:  # why: decision 41
            pause = self._transport.pause_reading
            self._gathering = Gathering(self._loop, gather_s, pause, self._read_on)

    def end(self) -> None:
        """This exchange is over: keep the connection if its answer is complete, else hang up."""
        if not self._is_busy:
            return
        self._is_busy = self._is_lingering = False
        self._stop_gathering()
        is_reusable = self._is_complete and self._keeps_alive and self.is_open and self._idle_s > 0
        if is_reusable:
            self._is_paused = False  # by an answer that was more than its reader took
            self._read_on()
            self._heard_at = self._loop.time()
            self._arm(self._heard_at + self._idle_s)
        else:
            self.abort()
        self._on_end(self, is_reusable)

    def linger(self) -> None:
        """See `HttpResponse.finish`."""
        if self._is_complete or self._error is not None or not self.is_open:
            self.end()
            return
        self._is_lingering = True
        self._stop_gathering()
        self._parts.clear()
        self.set_silence(LINGER_S)

    def abort(self) -> None:
        """Hang up at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._transport = None
        self._stop_gathering()
        if self._timer is not None:
            self._timer.cancel()
        if not self._is_complete:
            is_whole = self._response is not None and self._response.ends_by_closing
            if exc is None and self._error is None and is_whole:
                self._is_complete = True
                self._wake()
            else:
                self._fail(HttpBrokenError("the connection was closed"))
        if self._is_lingering:
            self.end()
        self._on_lost(self)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if not self._is_busy or self._is_complete:  # nobody asked for it
            self._keeps_alive = False
            self.abort()
            return
        self._heard_at = self._loop.time()
        self._idle_bytes += len(data)
        before = len(self._parts)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, ValueError) as error:
            self._fail(HttpBrokenError(f"not a well-formed answer ({type(error).__name__})"))
            return
        pieces = len(self._parts) - before
        if pieces:
            self._idle_bytes = 0
            self._size += len(data)  # with what frames the parts, which is little
        if self._idle_bytes > HEAD_BYTES_MAX and not self._is_complete:
            self._fail(HttpBrokenError(f"a head of more than {HEAD_BYTES_MAX} bytes"))
        elif self._size > BUFFER_BYTES_MAX and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()
        elif self._gathering is not None and pieces and not self._is_complete:
            self._gathering.note(pieces)
        self._wake()
        if self._is_lingering and (self._is_complete or self._parts):
            self.end()

    def on_header(self, name: bytes, value: bytes) -> None:
        """The parser's: a header, or a trailer, which nobody asked for."""
        if self._response is None:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The parser's: a head is complete."""
        if self._response is not None:  # a second one: its status and headers are not the first's
            raise ValueError("an answer that nobody asked for")  # makes the parser stop
        status, headers = self._parser.get_status_code(), self._headers
        self._headers = []
        if status < 200:  # an interim answer
            return
        self._idle_bytes = 0
        self._response = HttpResponse(self, status, headers)

    def on_message_complete(self) -> None:
        """The parser's: the answer is complete."""
        if self._response is None:
            return
        self._is_complete = True
        self._keeps_alive = self._parser.should_keep_alive()

    def _read_on(self) -> None:
        is_held = self._gathering is not None and self._gathering.is_holding
        if self._transport is not None and not (self._is_paused or is_held):
            self._transport.resume_reading()

    def _stop_gathering(self) -> None:
        gathering, self._gathering = self._gathering, None
        if gathering is not None:
            gathering.stop()

    def _wait(self) -> "asyncio.Future[None]":
        """What is done at the next arrival, or at the end."""
        self._waiter = self._loop.create_future()
        return self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: HttpBrokenError) -> None:
        if self._error is None:
            self._error = error
        self.abort()
        self._wake()

    def _get_due(self) -> float:
        if not self._is_busy:
            return self._heard_at + self._idle_s
        # Time in which the reader did not want more is no silence of the other side.
        is_held = self._gathering is not None and self._gathering.is_holding
        heard_at = self._loop.time() if self._is_paused or is_held else self._heard_at
        return min(heard_at + self._silence_s, self._ends_at)

    def _arm(self, due: float) -> None:
        """Look then; a timer that looks earlier finds what is due by itself."""
        if self._timer is not None:
            if self._timer_at <= due:
                return
            self._timer.cancel()
        self._timer_at = due
        self._timer = self._loop.call_at(due, self._check_time)

    def _check_time(self) -> None:
        self._timer = None
        due = self._get_due()
        if self._loop.time() < due:
            self._arm(due)
        elif self._is_busy:
            self._fail(HttpTimeoutError("the other side took longer than its time limit"))
        else:
            self.abort()
