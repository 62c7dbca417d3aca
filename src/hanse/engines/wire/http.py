"""Talking to a server that speaks OpenAI's HTTP API; shared by the engines `llama` and `upstream`.

Nothing is retried here: the broker's caller decides where a failed request goes next. A server's
error is mapped to ours, and of its text only a short, cleaned sentence goes on, and only when the
caller can act on it.
"""

import re
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from hanse.engines.wire.sse import DONE, FrameSplitter
from hanse.http import GATHER_S, HttpBrokenError, HttpClient, HttpResponse, HttpTimeoutError
from hanse.protocol.errors import HanseError, RequestError, TransientError
from hanse.protocol.limits import RESPONSE_BYTES_MAX
from hanse.protocol.wire.server_errors import (
    ERROR_BODY_BYTES_MAX,
    ServerError,
    read_retry_after_s,
    read_server_error,
)

_CONTEXT_WORDS = re.compile(r"context (length|size|window)|maximum context|too large to process")


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
        client: HttpClient,
        *,
        headers: dict[str, str],
        timeouts: Timeouts,
        gather_s: float = GATHER_S,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._timeouts = timeouts
        self._gather_s = gather_s
        self._secrets = [value.removeprefix("Bearer ") for value in headers.values() if value]
        self._client = client
        self._headers = {
            **headers,
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "hanse",
        }

    async def close(self) -> None:
        """Close every connection; running requests end."""
        await self._client.close()

    async def stream_payloads(
        self, path: str, body: dict[str, Any], headers: dict[str, str] | None = None
    ) -> AsyncGenerator[list[bytes], None]:
        """The SSE payloads of a streamed answer, as many at once as one read gave.

        `headers` go out besides the server's own.

        Closing the generator closes the connection, by which the server learns that nobody listens.
        """
        splitter = FrameSplitter()
        response: HttpResponse | None = None
        try:
            response = await self._send("POST", path, body, self._timeouts.first_token_s, headers)
            kind = response.headers.get("content-type") or ""
            if not kind.startswith("text/event-stream"):
                raise TransientError("engine_unavailable", "The engine did not stream its answer.")
            # what an engine has at once is passed on, and becomes durable, at once
            data = await response.read_burst()
            response.set_silence(self._timeouts.between_s)
            response.gather(self._gather_s)
            while data:
                if payloads := splitter.feed(data):
                    if payloads[-1] == DONE:
                        response.finish()  # else a body's end that comes late costs the connection
                    yield payloads
                data = await response.read()
        except (HttpBrokenError, OSError) as error:
            raise _get_broken(error) from error
        finally:
            if response is not None:
                # At its end this gives the connection back; before, it cuts it.
                response.close()

    async def fetch(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        head_s: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> bytes:
        """A whole answer's body; `head_s` stands in for the time a first token may take."""
        response: HttpResponse | None = None
        try:
            limit_s = head_s or self._timeouts.first_token_s
            response = await self._send(method, path, body, limit_s, headers)
            response.set_silence(self._timeouts.between_s)
            pieces: list[bytes] = []
            size_bytes = 0
            while data := await response.read():
                pieces.append(data)
                size_bytes += len(data)
                if size_bytes > RESPONSE_BYTES_MAX:
                    raise TransientError("engine_unavailable", "The answer is over its limit.")
        except (HttpBrokenError, OSError) as error:
            raise _get_broken(error) from error
        finally:
            if response is not None:
                response.close()
        return b"".join(pieces)

    async def _send(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        head_s: float,
        headers: dict[str, str] | None,
    ) -> HttpResponse:
        data = b"" if body is None else _encode(body)
        response = await self._client.send(
            method,
            self._base_url + path,
            {**self._headers, **headers} if headers else self._headers,
            data,
            silence_s=head_s,
            total_s=self._timeouts.total_s,
        )
        if response.status != 200:
            try:
                raise await self._read_error(response)
            finally:
                response.close()
        return response

    async def _read_error(self, response: HttpResponse) -> HanseError:
        response.set_silence(self._timeouts.between_s)
        raw = b""
        while len(raw) < ERROR_BODY_BYTES_MAX and (data := await response.read()):
            raw += data
        error = read_server_error(raw[:ERROR_BODY_BYTES_MAX], self._secrets)
        return _map_error(response.status, error, response.headers.get("retry-after"))


def _get_broken(error: OSError) -> TransientError:
    if isinstance(error, HttpTimeoutError):
        return TransientError("engine_unavailable", "The engine took longer than its time limit.")
    # The library's text may hold addresses; its kind is enough for a caller.
    return TransientError("engine_unavailable", f"The engine broke off ({type(error).__name__}).")


def _encode(body: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError as error:
        # JSON can escape half of a surrogate pair, which no encoding of text can hold.
        raise RequestError("invalid_request", "A text holds half of a surrogate pair.") from error


def _map_error(status: int, error: ServerError, retry_after: str | None) -> HanseError:
    message, param = error.message, error.param
    is_context = "context_length" in error.kind or "exceed_context" in error.kind
    if is_context or _CONTEXT_WORDS.search(message):
        said = message or "the context is too long."
        return RequestError("context_length_exceeded", f"The engine says: {said}", param=param)
    if status in (400, 422):
        said = message or "the request is not valid, without saying why."
        return RequestError("invalid_request", f"The engine says: {said}", param=param)
    if status == 413:
        return RequestError("request_too_large", "The request is too large for the engine.")
    if status == 429:
        return TransientError(
            "rate_limited",
            "The engine is at its rate limit.",
            retry_after_s=read_retry_after_s(retry_after),
        )
    # 401, 403 and 404 are the operator's doing (key, model name): nothing that a caller could mend.
    return TransientError(
        "engine_unavailable",
        f"The engine refused with HTTP status {status}.",
        retry_after_s=read_retry_after_s(retry_after) if status == 503 else None,
    )
