"""How requests reach a broker: the seam between the user's side and the network.

    Transport        what the SDK needs: `send` one request, get a `Response` once its head is there
    HttpTransport    pooled connections, for use (`hanse.sdk.transport.http`)
    AsgiTransport    an ASGI app in this process, for tests (`hanse.sdk.transport.asgi`)
    FrameSplitter    bytes of a stream to SSE frames (`hanse.sdk.transport.frames`)

A request that certainly never left fails with `NotSentError`; anything else that breaks is
`BrokenError`: the broker may have served it, so its voucher stays in flight until resume finds out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from hanse.protocol.errors import TransientError
from hanse.protocol.limits import RESPONSE_BYTES_MAX
from hanse.protocol.nesting import is_nested_too_deep


class NotSentError(TransientError):
    """Nothing reached the other side: refused, no route, no such name."""

    def __init__(self, message: str) -> None:
        super().__init__("provider_unreachable", message)


class BrokenError(TransientError):
    """The exchange broke off; the other side may have served it."""

    def __init__(self, message: str) -> None:
        super().__init__("provider_unreachable", message)


@dataclass(frozen=True)
class TransportLimits:
    """How long and how much.

    Attributes:
        connect_s: to a broker's port; more means it is gone.
        silence_s: between two arrivals of a stream, keep-alives included (a broker sends one at
            least every 10 s), and to its head.
        whole_s: to the head of a whole answer, which comes after all its tokens.
        total_s: of one exchange, so that dripping bytes cannot hold a request for ever.
        response_bytes: of one answer.
    """

    connect_s: float = 5.0
    silence_s: float = 60.0
    whole_s: float = 600.0
    total_s: float = 1_800.0
    response_bytes: int = RESPONSE_BYTES_MAX


class Response(Protocol):
    """An answer whose head has come."""

    @property
    def status(self) -> int:
        """HTTP status."""
        ...

    def find_header(self, name: str) -> str | None:
        """A header's value, by its lower-case name."""
        ...

    async def read(self) -> bytes:
        """What of the body has arrived and was not read yet, at least one byte; b"" at its end.

        Not an iterator: one that is left before its end costs a task to close it.

        Raises:
            BrokenError: it broke off.
        """
        ...

    def close(self) -> None:
        """Hang up, or give the connection back if the body has ended. Never fails."""
        ...


class Transport(Protocol):
    """Sends requests to brokers."""

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, *, silence_s: float
    ) -> Response:
        """Send one request and wait for the head of its answer; redirects are not followed.

        Raises:
            NotSentError: nothing was sent.
            BrokenError: no whole head came within `silence_s`.
        """
        ...

    async def close(self) -> None:
        """Let go of all connections."""
        ...


async def read_body(response: Response, bytes_max: int) -> bytes:
    """The whole body.

    Raises:
        BrokenError: it breaks off, is longer than `bytes_max`, or is JSON nested too deep.
    """
    parts: list[bytes] = []
    length = 0
    while chunk := await response.read():
        length += len(chunk)
        if length > bytes_max:
            raise BrokenError(
                f"the answer has {length} bytes or more, at most {bytes_max} are read"
            )
        parts.append(chunk)
    body = parts[0] if len(parts) == 1 else b"".join(parts)
    if is_nested_too_deep(body):
        raise BrokenError("the answer is nested too deep")
    return body
