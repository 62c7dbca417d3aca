"""ASGI messages: reading a body within its limits, answering with JSON, bytes and errors.

Raw ASGI, because a framework costs more processor time a request than both signatures.
"""

import asyncio
from collections.abc import Awaitable, Callable, Generator, MutableMapping, Sequence
from functools import partial
from typing import Any

import msgspec

from hanse.protocol.errors import HanseError, RequestError, TransientError
from hanse.protocol.limits import REQUEST_BODY_BYTES_MAX
from hanse.serving import COMPLETE

SEND_STALL_S = 30.0
"""A caller that has not taken anything for so long counts as gone."""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]

JSON: Header = (b"content-type", b"application/json")
EVENT_STREAM: Header = (b"content-type", b"text/event-stream; charset=utf-8")
NO_STORE: Header = (b"cache-control", b"no-store")
CLOSE: Header = (b"connection", b"close")


class CallerLeftError(Exception):
    """The caller hung up before its request was complete; there is nobody to answer."""


class AnswerCutError(Exception):
    """An answer was begun and cannot be ended as it should; the connection is to be closed."""


class CallerStalledError(AnswerCutError):
    """The same, because the caller reads no more: what it has not taken is to be dropped."""


class BodyBudget:
    """Bytes of bodies held in memory at once, over all callers."""

    def __init__(self, most: int) -> None:
        self._left = most

    def take(self, count: int) -> None:
        """Hold more; raises TransientError `overloaded` if the budget is used up."""
        if count > self._left:
            raise TransientError(
                "overloaded", "too many request bodies are in flight", retry_after_s=1.0
            )
        self._left -= count

    def give_back(self, count: int) -> None:
        """Let go."""
        self._left += count


def find_header(scope: Scope, name: bytes) -> str | None:
    """The first header of this (lower-case) name as text, or None."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value).decode("latin-1")
    return None


async def read_body(scope: Scope, receive: Receive, budget: BodyBudget, time_s: float) -> bytes:
    """The whole body; the caller gives its length back to the budget.

    Raises:
        RequestError: `request_too_large`, `invalid_request` for an encoded body.
        TransientError: `request_timeout`, `overloaded`.
        CallerLeftError: the caller hung up.
    """
    for name, value in scope["headers"]:
        if name == b"content-encoding" and value.lower() != b"identity":
            raise RequestError("invalid_request", "send the body without content-encoding")
        if name == b"content-length" and value.isdigit() and len(value) < 20:
            _check_length(int(value))
    whole: bytearray | None = scope.get("state", {}).get(COMPLETE)
    if whole is not None:  # there is nothing to wait for
        _check_length(len(whole))
        budget.take(len(whole))
        body = bytes(whole)
        whole.clear()
        return body
    try:
        async with asyncio.timeout(time_s):
            return await _read_messages(receive, budget)
    except TimeoutError:
        raise TransientError(
            "request_timeout", f"the body did not arrive within {time_s:g} s"
        ) from None


async def send_bytes(
    send: Send, status: int, body: bytes, headers: Sequence[Header], extra: Sequence[Header] = ()
) -> None:
    """One whole answer; a caller that reads nothing of it is given up after `SEND_STALL_S`."""
    length = (b"content-length", str(len(body)).encode())
    await send(
        {"type": "http.response.start", "status": status, "headers": [*headers, *extra, length]}
    )
    await send_within(send, {"type": "http.response.body", "body": body}, SEND_STALL_S)


async def send_within(send: Send, message: Message, time_s: float) -> None:
    """Send the end of an answer to a caller that still reads.

    A timer, which costs 4 us, is set only where the caller has to be waited for.

    Raises:
        CallerStalledError: it took nothing for so long.
    """
    steps = send(message).__await__()
    try:
        try:
            pending = next(steps)
        except StopIteration:
            return
        async with asyncio.timeout(time_s):
            await _Rest(steps, pending)
    except TimeoutError:
        raise CallerStalledError("request_timeout") from None


async def send_json(send: Send, status: int, data: object, extra: Sequence[Header] = ()) -> None:
    """One whole answer in JSON."""
    await send_bytes(send, status, msgspec.json.encode(data), (JSON, NO_STORE), extra)


async def send_error(
    send: Send, error: HanseError, extra: Sequence[Header] = (), body: bytes | None = None
) -> None:
    """An error as OpenAI's clients expect it, with Retry-After where a retry makes sense."""
    headers = [JSON, NO_STORE, *extra]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", str(max(1, round(error.retry_after_s))).encode()))
    elif error.row.status in (429, 503):
        headers.append((b"retry-after", b"1"))
    if error.code in ("request_too_large", "request_timeout"):
        headers.append(CLOSE)  # the rest of the body is not read
    await send_bytes(send, error.row.status, body or encode_error(error), headers)


def encode_error(error: HanseError) -> bytes:
    """The body of an error answer."""
    return msgspec.json.encode(error.to_openai())


class _Rest:
    """What is left of an awaitable that has made its first step, and waits for `pending`."""

    def __init__(self, steps: Generator[Any, Any, None], pending: Any) -> None:
        self._steps = steps
        self._pending = pending

    def __await__(self) -> Generator[Any, Any, None]:
        while True:
            try:
                yield self._pending
            except BaseException as error:  # a cancellation, which belongs to what waits
                step = partial(self._steps.throw, error)
            else:
                step = partial(next, self._steps)
            try:
                self._pending = step()
            except StopIteration:
                return


async def _read_messages(receive: Receive, budget: BodyBudget) -> bytes:
    held = 0
    parts: list[bytes] = []
    try:
        while True:
            message = await receive()
            held += _hold(message, held, budget)
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                return b"".join(parts)
    except BaseException:
        budget.give_back(held)
        raise


def _hold(message: Message, before: int, budget: BodyBudget) -> int:
    if message["type"] == "http.disconnect":
        raise CallerLeftError
    count = len(message.get("body", b""))
    _check_length(before + count)
    budget.take(count)
    return count


def _check_length(length: int) -> None:
    if length > REQUEST_BODY_BYTES_MAX:
        raise RequestError(
            "request_too_large",
            f"the body has {length} bytes or more, at most {REQUEST_BODY_BYTES_MAX} are taken",
        )
