"""The answer of one exchange, as its reader holds it.

It leads to its connection for as long as both have to do with each other; closed, it says nothing
more.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hanse.http.connection import HttpConnection


RawHeaders = list[tuple[bytes, bytes]]
"""As they came."""


class HttpResponse:
    """An answer whose head has come. Close it, also after reading it to its end."""

    __slots__ = ("_connection", "_headers", "_raw_headers", "status")

    def __init__(self, connection: "HttpConnection", status: int, raw_headers: RawHeaders) -> None:
        self._connection: HttpConnection | None = connection
        self._raw_headers = raw_headers
        self._headers: dict[str, str] | None = None
        self.status = status

    @property
    def headers(self) -> dict[str, str]:
        """By lower-case name; the first of each counts."""
        if self._headers is None:
            self._headers = {}
            for name, value in self._raw_headers:
                self._headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
        return self._headers

    @property
    def ends_by_closing(self) -> bool:
        """Whether nothing in the head says where the body ends."""
        return not ("content-length" in self.headers or "transfer-encoding" in self.headers)

    async def read(self) -> bytes:
        """All that has come of the body, waiting for something; empty at its end.

        Raises:
            HttpBrokenError: it broke off.
        """
        return b"" if self._connection is None else await self._connection.read()

    async def read_burst(self) -> bytes:
        """The same, with what arrives while it is taken, at most for `BURST_TURNS_MAX` turns.

        An answer that is written at once is one piece so, however many packets it came in. One that
        is still being made waits for one turn of the loop.
        """
        return b"" if self._connection is None else await self._connection.read_burst()

    def set_silence(self, silence_s: float) -> None:
        """From now on the other side may be silent for so long."""
        if self._connection is not None:
            self._connection.set_silence(silence_s)

    def gather(self, gather_s: float) -> None:
        """Take what comes of a fast stream together from now on, so many seconds of it; 0: never.

        See `hanse.http.gathering`.
        """
        if self._connection is not None:
            self._connection.gather(gather_s)

    def close(self) -> None:
        """Give the connection back if the body has ended, else hang up. May be called twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.end()

    def finish(self) -> None:
        """Close after all content has come: the body's end may follow, and saves the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.linger()
