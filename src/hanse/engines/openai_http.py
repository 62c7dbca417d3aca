"""Talking to a server that speaks OpenAI's HTTP API; shared by the engines `llama` and `upstream`.

Nothing is retried here: the broker's caller decides where a failed request goes next. A server's
error is mapped to ours, and of its text only a short, cleaned sentence goes on, and only when the
caller can act on it.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import aiohttp
import msgspec

from hanse.engines.sse import FrameSplitter
from hanse.protocol.errors import HanseError, RequestError, TransientError
from hanse.protocol.limits import RESPONSE_BYTES_MAX
from hanse.protocol.nesting import is_nested_too_deep

ERROR_BODY_BYTES_MAX = 65_536
"""Of an error's body no more is read."""

ERROR_MESSAGE_CHARS_MAX = 300
"""Of its message no more is passed on."""

RETRY_AFTER_S_MAX = 3_600.0
"""A longer wait asked for by a server is cut to this."""

_CONTEXT_WORDS = re.compile(r"context (length|size|window)|maximum context|too large to process")
_SECRETS = re.compile(r"\b(sk|key|Bearer)[-_ ][A-Za-z0-9_\-]{8,}\S*")


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """How long each stage of a request may take, in seconds.

    Attributes:
        connect_s: until the connection stands.
        first_token_s: from the request until the first frame, or a whole answer's head; includes
            the engine's queue and the prompt.
        between_s: between two pieces of an answer.
        total_s: for everything.
    """

    connect_s: float = 5.0
    first_token_s: float = 120.0
    between_s: float = 60.0
    total_s: float = 1_800.0


class OpenAIServer:
    """One server by base URL, with its connections."""

    def __init__(
        self,
        base_url: str,
        connector: aiohttp.BaseConnector,
        *,
        headers: dict[str, str],
        timeouts: Timeouts,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._timeouts = timeouts
        self._secrets = [value.removeprefix("Bearer ") for value in headers.values() if value]
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers={**headers, "Content-Type": "application/json"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=timeouts.connect_s),
            auto_decompress=True,
        )

    async def close(self) -> None:
        """Close every connection; running requests end."""
        await self._session.close()

    async def stream_payloads(
        self, path: str, body: dict[str, Any]
    ) -> AsyncGenerator[list[bytes], None]:
        """The SSE payloads of a streamed answer, as many at once as one read gave.

        Closing the generator closes the connection, by which the server learns that nobody listens.
        """
        splitter = FrameSplitter()
        deadline = asyncio.get_running_loop().time() + self._timeouts.total_s
        first_s: float | None = self._timeouts.first_token_s
        async with self._send("POST", path, body, self._timeouts.first_token_s) as response:
            if not response.content_type.startswith("text/event-stream"):
                raise TransientError("engine_unavailable", "The engine did not stream its answer.")
            while data := await self._read_piece(response, deadline, first_s):
                first_s = None
                if payloads := splitter.feed(data):
                    yield payloads

    async def fetch(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        head_s: float | None = None,
    ) -> bytes:
        """A whole answer's body; `head_s` stands in for the time a first token may take."""
        deadline = asyncio.get_running_loop().time() + self._timeouts.total_s
        async with self._send(
            method, path, body, head_s or self._timeouts.first_token_s
        ) as response:
            pieces: list[bytes] = []
            size_bytes = 0
            while data := await self._read_piece(response, deadline, None):
                pieces.append(data)
                size_bytes += len(data)
                if size_bytes > RESPONSE_BYTES_MAX:
                    raise TransientError("engine_unavailable", "The answer is over its limit.")
        return b"".join(pieces)

    @contextlib.asynccontextmanager
    async def _send(
        self, method: str, path: str, body: dict[str, Any] | None, head_s: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        data = None if body is None else _encode(body)
        response: aiohttp.ClientResponse | None = None
        try:
            async with asyncio.timeout(head_s):
                response = await self._session.request(
                    method, self._base_url + path, data=data, allow_redirects=False
                )
            if response.status != 200:
                raise await self._read_error(response)
            yield response
        except TimeoutError as error:
            raise TransientError(
                "engine_unavailable", "The engine took longer than its time limit."
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            # The library's text may hold addresses; its kind is enough for a caller.
            raise TransientError(
                "engine_unavailable", f"The engine broke off ({type(error).__name__})."
            ) from error
        finally:
            if response is not None:
                # At its end a response has already given its connection back; before, this cuts it.
                response.close()

    async def _read_piece(
        self, response: aiohttp.ClientResponse, deadline: float, limit_s: float | None
    ) -> bytes:
        limit_s = self._timeouts.between_s if limit_s is None else limit_s
        left_s = deadline - asyncio.get_running_loop().time()
        async with asyncio.timeout(min(limit_s, left_s)):
            return await response.content.readany()

    async def _read_error(self, response: aiohttp.ClientResponse) -> HanseError:
        async with asyncio.timeout(self._timeouts.between_s):
            raw = await response.content.read(ERROR_BODY_BYTES_MAX)
        error = _read_error_body(raw)
        error.message = self._clean(error.message)
        return _map_error(response.status, error, response.headers.get("Retry-After"))

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        text = _SECRETS.sub("***", text)
        printable = "".join(c if c.isprintable() else " " for c in text)
        return " ".join(printable.split())[:ERROR_MESSAGE_CHARS_MAX]


def _encode(body: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError as error:
        # JSON can escape half of a surrogate pair, which no encoding of text can hold.
        raise RequestError("invalid_request", "A text holds half of a surrogate pair.") from error


class _ErrorBody(msgspec.Struct):
    """What an OpenAI error says; every field is somebody else's text."""

    message: str = ""
    param: str | None = None
    kind: str = ""


def _read_error_body(raw: bytes) -> _ErrorBody:
    try:
        if is_nested_too_deep(raw):
            raise RecursionError
        error = msgspec.json.decode(raw)["error"]
        param = error.get("param")
        kind = f"{error.get('code')} {error.get('type')}"
        name = param[:64] if isinstance(param, str) and param.isprintable() else None
        return _ErrorBody(str(error["message"]), name, kind)
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError, RecursionError):
        return _ErrorBody()


def _map_error(status: int, error: _ErrorBody, retry_after: str | None) -> HanseError:
    message, param = error.message, error.param
    is_context = "context_length" in error.kind or "exceed_context" in error.kind
    if is_context or _CONTEXT_WORDS.search(message):
        return RequestError("context_length_exceeded", f"The engine says: {message}", param=param)
    if status in (400, 422):
        said = message or "the request is not valid, without saying why."
        return RequestError("invalid_request", f"The engine says: {said}", param=param)
    if status == 413:
        return RequestError("request_too_large", "The request is too large for the engine.")
    if status == 429:
        return TransientError(
            "rate_limited", "The engine is at its rate limit.", retry_after_s=_read_s(retry_after)
        )
    # 401, 403 and 404 are the operator's doing (key, model name): nothing that a caller could mend.
    return TransientError(
        "engine_unavailable",
        f"The engine refused with HTTP status {status}.",
        retry_after_s=_read_s(retry_after) if status == 503 else None,
    )


def _read_s(text: str | None) -> float | None:
    try:
        return None if text is None else max(0.0, min(float(text), RETRY_AFTER_S_MAX))
    except ValueError:
        return None
