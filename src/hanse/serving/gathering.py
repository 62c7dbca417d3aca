"""A transport that hands what is written in one turn of the loop to the system in one call.

A head and its first frame, or the frames of one arrival, are one packet instead of several: the
system call is most of what a small frame costs. Nothing waits for it: the call is made before the
loop looks at the network again. `hanse.serving.connection` writes through it.
"""

import asyncio
from typing import Any

GATHERED_BYTES_MAX = 64 * 1024
"""Written at once however early it is: the buffer's high-water mark must see it."""


class GatheringTransport:
    """Over a connection's own transport; see the module."""

    __slots__ = (
        *("_loop", "_parts", "_size", "_transport"),
        *("abort", "is_closing", "pause_reading", "resume_reading"),
    )

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        # asked several times a request: bound here, they cost no call of `__getattr__`
        self.abort = transport.abort
        self.is_closing = transport.is_closing
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading
        self._loop = loop
        self._parts: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        """Take it for the end of this turn."""
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(data)
        self._size += len(data)
        if self._size >= GATHERED_BYTES_MAX:
            self.flush()

    def flush(self) -> None:
        """Hand on what was taken."""
        if self._parts and not self._transport.is_closing():
            self._transport.write(b"".join(self._parts))
        self._parts.clear()
        self._size = 0

    def close(self) -> None:
        """Close once it has left."""
        self.flush()
        self._transport.close()

    def write_eof(self) -> None:
        """End this side once it has left."""
        self.flush()
        self._transport.write_eof()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
