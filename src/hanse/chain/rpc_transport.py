"""One JSON-RPC exchange with a node over HTTP, within bounds.

`RpcTransport` is the seam where tests put lag, loss and lies; `hanse.chain.rpc` stands on it.
"""

import asyncio
import base64
import contextlib
import zlib
from typing import Protocol
from urllib.parse import unquote, urlsplit

from hanse.chain.chain_types import ChainError
from hanse.http import (
    HttpBrokenError,
    HttpClient,
    HttpConnectError,
    HttpResponse,
    HttpTimeoutError,
)
from hanse.protocol.errors import TransientError

RESPONSE_BYTES_MAX = 32 * 1024 * 1024
"""One answer of a node. A full page of logs is under 10 MB; more is a broken or hostile node."""

TIMEOUT_S = 15.0
"""One exchange with a node; slower than that it is treated as gone."""

IDLE_S = 15.0
"""An idle connection is dropped before common nodes do it (geth after 120 s, proxies after 60)."""


class RpcTransport(Protocol):
    """Carries one JSON-RPC body to a node and brings the answer's body back."""

    async def exchange(self, body: bytes) -> bytes:
        """Send and receive. Raises `TransientError` for anything that a retry may cure."""
        ...

    async def close(self) -> None:
        """Release what is held. May be called twice."""
        ...


class HttpTransport:
    """`RpcTransport` over HTTP, with kept-alive connections made at first use."""

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._url, self._headers = _split_credentials(url)
        self._timeout_s = timeout_s
        self._client: HttpClient | None = None

    async def exchange(self, body: bytes) -> bytes:
        """See `RpcTransport.exchange`."""
        if self._client is None:
            self._client = HttpClient(connect_s=self._timeout_s, idle_s=IDLE_S)
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._client.send(
                    *("POST", self._url, self._headers, body), silence_s=self._timeout_s
                )
                try:
                    return await self._read(answer)
                finally:
                    answer.close()
        except (TimeoutError, HttpTimeoutError):
            raise unavailable(f"no answer within {self._timeout_s} s") from None
        except (HttpConnectError, HttpBrokenError, ValueError, zlib.error) as error:
            # The class name only: a URL may hold an access key.
            raise unavailable(f"{type(error).__name__}") from None

    async def close(self) -> None:
        """See `RpcTransport.close`."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    @staticmethod
    async def _read(answer: HttpResponse) -> bytes:
        if answer.status == 429 or answer.status >= 500:
            raise unavailable(f"status {answer.status}")
        if 300 <= answer.status < 400:
            # A redirect would have whomever it names answer for the chain.
            raise unavailable(f"status {answer.status}, a redirect, which is not followed")
        is_packed = answer.headers.get("content-encoding", "identity") == "gzip"
        unpack = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS) if is_packed else None
        data = bytearray()
        while chunk := await answer.read():
            room = RESPONSE_BYTES_MAX - len(data) + 1
            data += chunk if unpack is None else unpack.decompress(chunk, room)
            if len(data) > RESPONSE_BYTES_MAX:
                raise ChainError(
                    f"the node's answer is larger than {RESPONSE_BYTES_MAX} bytes; ask for fewer"
                    " blocks or use another node",
                    reason="response too large",
                )
        if unpack is not None and not unpack.eof:
            raise unavailable("a packed answer that was cut")
        # Nodes report JSON-RPC errors with 200 or with 4xx and a JSON body; both are read alike.
        return bytes(data)


def _split_credentials(url: str) -> tuple[str, dict[str, str]]:
    """The URL without a name and password, and the headers of every request."""
    headers = {"content-type": "application/json", "accept-encoding": "gzip", "user-agent": "hanse"}
    with contextlib.suppress(ValueError):  # of no URL at all: sending says so
        parts = urlsplit(url)
        told, at, place = parts.netloc.rpartition("@")
        if at:
            pair = ":".join(unquote(part) for part in told.partition(":")[::2])
            headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
            url = parts._replace(netloc=place).geturl()
    return url, headers


def unavailable(what: str) -> TransientError:
    """The error of a node that gave no usable answer."""
    return TransientError(
        "chain_unavailable", f"the chain's node failed: {what}; check that it runs and try again"
    )
