"""uvicorn's HTTP protocol with the bounds that it lacks.

uvicorn's httptools protocol reads heads of any length for any time, and starts its idle timer only
after the first answer: a few thousand silent connections would hold a process for ever. This one
bounds a head's bytes and time, what is sent ahead and the number of connections, and lets the
application drop a connection whose other end has stopped reading.

Whoever is refused is told why in OpenAI's error shape, then hung up on. A user's side that reads a
refusal knows that its request was not admitted, and takes its voucher back at once; a connection
that merely ends leaves it asking for a receipt.

Source: uvicorn 0.54, `uvicorn/protocols/http/httptools_impl.py`.
"""

import asyncio
from collections.abc import Callable
from typing import ClassVar

import httptools
import msgspec
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hanse.protocol.errors import HanseError, RequestError, TransientError
from hanse.serving.departure import LEFT
from hanse.serving.gathering import GatheringTransport

ABORT = "hanse.abort"
"""Where a request's scope holds, in its state, a function that drops the connection."""

COMPLETE = "hanse.complete"
"""Where a request's scope holds, in its state, its body once all of that is here: a bytearray, that
`receive` gives too and that who takes it from there may empty. It is not there before, and never
behind another server."""

HEAD_BYTES_MAX = 32 * 1024
"""Request line and headers together: a voucher takes 4 kB at most, OpenAI's SDKs send about 1 kB,
browsers with cookies and proxies add a few.
"""

HEAD_READ_S = 10.0
"""From a connection's first byte (or its opening) to the end of its headers. An honest client needs
one round trip; a slow one holds a file descriptor for no longer than this. The same for whatever
else comes while nothing is being served, such as the rest of a body that was refused.
"""

PIPELINED_MAX = 8
"""Requests sent ahead on one connection: each takes 2 kB, and one read can hold 10,000 of them."""

CLOSE_S = 5.0
"""For the other end to take what was sent before a closed connection is dropped."""

LINGER_S = 1.0
"""How long a refused connection's bytes are still taken and thrown away, for it to read why."""

LINGER_BYTES_MAX = 8 * 1024 * 1024
"""Of those bytes, so many: a whole body may be on its way already; more is no honest caller's."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection. `create_config` makes a class of it that has its limits."""

    connections_max: ClassVar[int]
    head_read_s: ClassVar[float]

    _in_head = False
    _refused = False
    _lingering_bytes = 0
    _head_bytes = 0
    _read_bytes = 0
    _idle_bytes = 0
    _has_advanced = False
    _idle_since: float | None = None  # loop time of the last answer's end
    _head_timer: asyncio.TimerHandle | None = None
    _on_left: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse what is one too many; else give it `head_read_s` for its first head."""
        super().connection_made(GatheringTransport(transport, self.loop))  # type: ignore[arg-type]
        if len(self.connections) > self.connections_max:
            most = self.connections_max
            self._refuse(TransientError("overloaded", f"{most} connections are open already"))
        else:
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the timer go with the connection, and tell who watches."""
        self._stop_timer()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        if self._on_left is not None:
            self._on_left()

    def data_received(self, data: bytes) -> None:
        """Bound what comes in pieces, by bytes and by time.

        The parser reports a header at its end only, and a trailer behind a chunked body likewise:
        so bytes count that bring the request no further.
        """
        if self._refused:
            self._lingering_bytes += len(data)
            if self._lingering_bytes > LINGER_BYTES_MAX:
                self.transport.abort()
            return
        if self.transport.is_closing():
            return
        self._read_bytes = len(data)
        self._has_advanced = False
        self._idle_since = None
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.send_400_response("")
        except httptools.HttpParserUpgrade:
            pass  # nothing here speaks another protocol; the request was served as it is
        if self._refused or self.transport.is_closing():
            return
        self._idle_bytes = 0 if self._has_advanced else self._idle_bytes + len(data)
        if self._in_head:
            self._head_bytes += len(data)
        if max(self._head_bytes if self._in_head else 0, self._idle_bytes) > HEAD_BYTES_MAX:
            self._refuse(_get_head_error())
        elif self._head_timer is None and (self._in_head or self._is_unattended()):
            self._start_timer()

    def on_body(self, body: bytes) -> None:
        """Part of a body; of an answer that is complete already it is thrown away."""
        self._has_advanced = True
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; a trailer, which nobody asked for, is dropped."""
        if self._in_head:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        """A head is complete; one that came in a single large read is measured here."""
        self._in_head = False
        self._has_advanced = True
        self._stop_timer()
        if self._read_bytes > HEAD_BYTES_MAX:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > HEAD_BYTES_MAX:
                self._refuse(_get_head_error())
                raise ValueError("head too large")  # makes the parser stop
        self.scope["state"][ABORT] = self.transport.abort
        self.scope["state"][LEFT] = self._set_on_left
        super().on_headers_complete()
        if len(self.pipeline) > PIPELINED_MAX:
            self.transport.abort()
            raise ValueError("too much sent ahead")  # makes the parser stop

    def on_message_complete(self) -> None:
        """The body is here to its end."""
        cycle = self.cycle
        if cycle.scope is self.scope:
            self.scope["state"][COMPLETE] = cycle.body
        if not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()

    def on_response_complete(self) -> None:
        """An answer has ended; the idle timer runs on, and looks how long ago that was."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._wait_idle(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that idles, also if its other end does not read."""
        self.timeout_keep_alive_task = None
        if self._idle_since is None:  # at work; the answer's end begins anew
            return
        rest_s = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if rest_s > 0.001:  # the clock's step
            self._wait_idle(rest_s)
            return
        self.transport.close()
        self.loop.call_later(CLOSE_S, self.transport.abort)

    def _wait_idle(self, for_s: float) -> None:
        task = self.loop.call_later(for_s, self.timeout_keep_alive_handler)
        self.timeout_keep_alive_task = task

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        self._refuse(RequestError("invalid_request", "this is not a well-formed HTTP/1.1 request"))

    def _set_on_left(self, on_left: Callable[[], None] | None) -> None:
        """See `hanse.serving.departure`; a paused connection would not notice its end."""
        self._on_left = on_left
        if on_left is None:
            return
        if self.transport.is_closing():
            self.loop.call_soon(on_left)
        elif self.flow.read_paused:
            self.flow.resume_reading()

    def _is_unattended(self) -> bool:
        """Whether bytes came while nothing is served and no timer runs.

        A connection idles after an answer only, and until the next byte.
        """
        idle = self.cycle is None or (self.cycle.response_complete and not self.pipeline)
        return idle and self._idle_since is None

    def _start_timer(self) -> None:
        self._head_timer = self.loop.call_later(self.head_read_s, self._time_out)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _time_out(self) -> None:
        self._refuse(
            RequestError(
                "request_timeout", f"the headers did not arrive within {self.head_read_s:g} s"
            )
        )

    def _refuse(self, error: HanseError) -> None:
        """Answer and hang up; if another answer is on its way, only close."""
        self._in_head = False
        self._stop_timer()
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()
            return
        body = msgspec.json.encode(error.to_openai())
        self.transport.write(
            b"HTTP/1.1 %d \r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
            b"connection: close\r\nretry-after: 1\r\n\r\n" % (error.row.status, len(body)) + body
        )
        # Closing with unread bytes would reset the connection before the other end reads why.
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.abort)


def _get_head_error() -> RequestError:
    return RequestError(
        "request_too_large", f"request line and headers have more than {HEAD_BYTES_MAX} bytes"
    )
