"""One request of an application and its answer, over ASGI.

Reads the head once and the body within its limits, sends JSON and errors in OpenAI's shape, and
watches for the application leaving: a `Watch` cancels the handler at once when it does, when it
stops reading, or when the gateway must stop.

Source: the ASGI specification, "HTTP connection scope"; OpenAI's API reference, "Errors".
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

import msgspec

from hanse.gateway.settings import DISCARD_BYTES_MAX
from hanse.protocol.errors import HanseError, RequestError, TransientError
from hanse.serving import ABORT, COMPLETE, Looks, watch_departure

if TYPE_CHECKING:
    from hanse.gateway.telemetry.record import Seen

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

STATUS_GONE = 499
"""What metrics and the access log say of an application that left; never sent."""

_JSON = (b"content-type", b"application/json")


class AppGoneError(Exception):
    """The application is not there any more; there is nobody to answer."""


class Exchange:
    """One request and its answer.

    Attributes:
        status: 0 until the answer has started.
        sent_bytes: of the body, the part now being sent included.
        sending: whether the server is taking a part now (it waits while its buffer is full).
        complete: whether the last part has been taken.
        streaming: whether the answer is an SSE stream.
        broken: whether that stream ended without its `[DONE]`.
        wishes: the application's `hanse-...` headers, by lower-case name; the last of each counts.
        headers: of the request, as they came.
        seen: what is noted of it on its way; None if nobody looks.
        extra_headers: what every answer of this request carries.
        to_error_body: an error's JSON; in OpenAI's shape unless the path's dialect has its own.
        to_error_frame: the same for the frame that ends a broken stream.
    """

    def __init__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send, id_: str):
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.request_id = id_
        self.headers: list[tuple[bytes, bytes]] = scope["headers"]
        self.seen: Seen | None = None
        self.receive = receive
        self.send = send
        self.status = 0
        self.sent_bytes = 0
        self.sending = False
        self.complete = False
        self.streaming = False
        self.broken = False
        self.extra_headers: Headers = [(b"x-request-id", id_.encode())]
        self.to_error_body: Callable[[HanseError], object] = HanseError.to_openai
        self.to_error_frame: Callable[[HanseError], bytes] = _to_error_frame
        self.wishes: dict[bytes, bytes] = {}
        self.authorization = self.origin = self.length = self.wanted_headers = b""
        for name, value in scope["headers"]:
            if name == b"authorization":
                self.authorization = value
            elif name == b"x-api-key" and not self.authorization:  # how Anthropic's SDKs say it
                self.authorization = b"Bearer " + value
            elif name == b"origin":
                self.origin = value
            elif name == b"content-length":
                self.length = value
            elif name == b"access-control-request-headers":
                self.wanted_headers = value
            elif name[:6] == b"hanse-":
                self.wishes[name] = value
        self.state = scope.get("state", {})

    async def read_body(
        self, bytes_max: int, within_s: float, take: Callable[[int], None] | None = None
    ) -> bytes:
        """The whole body.

        Args:
            bytes_max: the longest taken; one that is longer is thrown away as it comes.
            within_s: time for all of it.
            take: told of the bytes of each part; may refuse it with `overloaded`.

        Raises:
            RequestError: `request_too_large`, or `request_timeout`.
            TransientError: `overloaded`.
            AppGoneError: it left before its body was complete.
        """
        whole: bytearray | None = self.state.get(COMPLETE)
        try:
            if whole is not None and len(whole) <= bytes_max:  # there is nothing to wait for
                if take is not None:
                    take(len(whole))
                body = bytes(whole)
                whole.clear()
                return body
            async with asyncio.timeout(within_s):
                return await self._read_body(bytes_max, take)
        except TransientError:
            self.extra_headers.append((b"connection", b"close"))
            raise
        except TimeoutError:
            self.extra_headers.append((b"connection", b"close"))
            raise RequestError(
                "request_timeout", f"the body did not arrive in full within {within_s:g} s"
            ) from None

    async def start(self, status: int, headers: Headers) -> None:
        """Send the head of an answer whose body follows by `send_part`."""
        self.status = status
        if self.seen is not None and status == 200:
            self.seen.headed_s = self.seen.now()
        event = {
            "type": "http.response.start",
            "status": status,
            "headers": headers + self.extra_headers,
        }
        try:
            await self.send(event)
        except OSError:  # how ASGI 2.4 says that nobody is there
            raise AppGoneError from None

    async def send_part(self, part: bytes, more: bool) -> None:
        """Send a part of the body, as it is."""
        self.sent_bytes += len(part)
        self.sending = True
        try:
            await self.send({"type": "http.response.body", "body": part, "more_body": more})
        except OSError:
            raise AppGoneError from None
        self.sending = False
        self.complete = not more

    async def send_whole(self, status: int, body: bytes, headers: Headers) -> None:
        """Send a whole answer; a `HEAD` request gets its head only."""
        await self.start(status, [*headers, (b"content-length", str(len(body)).encode())])
        await self.send_part(b"" if self.method == "HEAD" else body, more=False)

    async def send_json(self, status: int, content: object, headers: Headers | None = None) -> None:
        """Send a JSON answer."""
        await self.send_whole(status, msgspec.json.encode(content), [_JSON, *(headers or [])])

    async def send_error(self, error: HanseError, retry_after_s: int) -> None:
        """Send an error as OpenAI shapes it, with the headers that its status asks for."""
        status = error.row.status
        if self.seen is not None:
            self.seen.error = error.code
        headers: Headers = []
        if status in (429, 503):
            wait_s = math.ceil(error.retry_after_s or retry_after_s)
            headers.append((b"retry-after", str(wait_s).encode()))
        elif status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        elif status == 405:
            headers.append((b"allow", ", ".join(error.details.get("allowed", ())).encode()))
        elif status == 500:
            headers.append((b"x-should-retry", b"false"))
        await self.send_json(status, self.to_error_body(error), headers)

    async def end_broken(self, error: HanseError | None, comment: bytes = b"") -> None:
        """End a stream that has started, with an error frame, without `[DONE]`."""
        self.broken = True
        if self.seen is not None and error is not None:
            self.seen.error = error.code
        frame = b"" if error is None else self.to_error_frame(error)
        await self.send_part(frame + comment, more=False)

    def abort(self) -> None:
        """Drop the connection without waiting for what it has not read."""
        abort = self.state.get(ABORT)
        if abort is not None:
            abort()

    async def _read_body(self, bytes_max: int, take: Callable[[int], None] | None) -> bytes:
        declared = int(self.length) if self.length.isdigit() and len(self.length) < 20 else 0
        too_large = declared > bytes_max
        parts: list[bytes] = []
        size = 0
        more = True
        while more:
            event = await self.receive()
            if event["type"] == "http.disconnect":
                raise AppGoneError
            part = event.get("body", b"")
            size += len(part)
            more = event.get("more_body", False)
            too_large = too_large or size > bytes_max
            if too_large:
                parts.clear()
                if max(size, declared) > DISCARD_BYTES_MAX:
                    self.extra_headers.append((b"connection", b"close"))
                    break
            else:
                if take is not None:
                    take(len(part))
                parts.append(part)
        if too_large:
            raise RequestError(
                "request_too_large",
                f"the body has {max(size, declared)} bytes or more, at most {bytes_max} are taken",
            )
        return parts[0] if len(parts) == 1 else b"".join(parts)


class Watch:
    """Cancels the handler's task when there is no use in going on.

    Nothing is done a frame. Use it as a context: what it cancelled comes out as `AppGoneError`, or
    as `draining`.
    """

    def __init__(self, exchange: Exchange, looks: Looks) -> None:
        """Begin nothing yet; `looks` tell how long a part may take to send."""
        self._exchange = exchange
        self._looks = looks
        self._sent_before = -1
        self._reason: Exception | None = None
        self._ended = False

    def __enter__(self) -> "Watch":
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        exchange = self._exchange
        self._stop = watch_departure(exchange.state, exchange.receive, self._leave)
        self._looks.begin(self._check_stall)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._ended = True
        self._looks.end(self._check_stall)
        self._stop()
        if self._reason is not None and isinstance(error, asyncio.CancelledError):
            self._task.uncancel()
            raise self._reason from None

    def cut(self, reason: Exception) -> None:
        """Cancel the handler; `reason` comes out instead of the cancellation."""
        if self._reason is None and not self._ended and not self._exchange.complete:
            self._reason = reason
            self._task.cancel()

    def _leave(self) -> None:
        self.cut(AppGoneError())

    def _check_stall(self) -> None:
        exchange = self._exchange
        if exchange.sending and exchange.sent_bytes == self._sent_before:
            exchange.abort()
            self.cut(AppGoneError())
        self._sent_before = exchange.sent_bytes if exchange.sending else -1


def get_draining() -> TransientError:
    """The error of a gateway that is about to stop."""
    return TransientError("draining", "this gateway is about to stop; ask again or ask another")


def _to_error_frame(error: HanseError) -> bytes:
    return b"data: " + msgspec.json.encode(error.to_openai()) + b"\n\n"
