"""ASGI messages of a recorder: bounded bodies, answers in JSON, errors in OpenAI's shape.

Raw ASGI, as at broker and gateway. Every body here is JSON of at most `RECORD_BODY_BYTES_MAX`.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from hanse.protocol.errors import HanseError, RequestError, TransientError
from hanse.protocol.limits import RECORD_BODY_BYTES_MAX
from hanse.protocol.nesting import is_nested_too_deep

SEND_STALL_S = 30.0
"""A caller that has not taken its answer for so long counts as gone."""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

JSON = (b"content-type", b"application/json")
NO_STORE = (b"cache-control", b"no-store")
CLOSE = (b"connection", b"close")


class CallerLeftError(Exception):
    """The caller hung up before its request was complete; there is nobody to answer."""


async def read_body(scope: Scope, receive: Receive, time_s: float) -> bytes:
    """The whole body.

    Raises:
        RequestError: `request_too_large`, `invalid_request` for an encoded or a deep body.
        TransientError: `request_timeout`.
        CallerLeftError: the caller hung up.
    """
    for name, value in scope["headers"]:
        if name == b"content-encoding" and value.lower() != b"identity":
            raise RequestError("invalid_request", "send the body without content-encoding")
        if name == b"content-length" and value.isdigit() and len(value) < 20:
            _check_length(int(value))
    parts: list[bytes] = []
    length, more = 0, True
    try:
        async with asyncio.timeout(time_s):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise CallerLeftError
                parts.append(message.get("body", b""))
                length, more = length + len(parts[-1]), bool(message.get("more_body"))
                _check_length(length)
    except TimeoutError:
        raise TransientError(
            "request_timeout", f"the body did not arrive within {time_s:g} s"
        ) from None
    body = b"".join(parts)
    if is_nested_too_deep(body):
        raise RequestError("invalid_request", "the JSON is nested too deep")
    return body


async def send_json(send: Send, status: int, data: object) -> None:
    """One whole answer in JSON."""
    await send_bytes(send, status, msgspec.json.encode(data), [JSON, NO_STORE])


async def send_error(send: Send, error: HanseError) -> None:
    """An error in OpenAI's shape, with Retry-After where a retry makes sense."""
    headers = [JSON, NO_STORE]
    if error.row.status in (429, 503):
        seconds = max(1, round(error.retry_after_s or 1))
        headers.append((b"retry-after", str(seconds).encode()))
    if error.code in ("request_too_large", "request_timeout"):
        headers.append(CLOSE)  # the rest of the body is not read
    await send_bytes(send, error.row.status, msgspec.json.encode(error.to_openai()), headers)


async def send_bytes(
    send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    """One whole answer; a caller that reads nothing of it is given up after `SEND_STALL_S`."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    async with asyncio.timeout(SEND_STALL_S):
        await send({"type": "http.response.body", "body": body})


def _check_length(length: int) -> None:
    if length > RECORD_BODY_BYTES_MAX:
        raise RequestError(
            "request_too_large",
            f"the body has {length} bytes or more, at most {RECORD_BODY_BYTES_MAX} are taken",
        )
