"""An ASGI server of a few lines that does what a script says, also leaving in the middle."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any


class Caller:
    """Makes one request of an ASGI app.

    Every event, either way, is numbered from 0. From event `leave_at` on the caller is gone:
    `receive` says so, and `send` drops what it is given (as uvicorn does) or raises (as ASGI 2.4
    has it).
    """

    def __init__(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | list[tuple[bytes, bytes]] = (),
        parts: list[bytes] | None = None,
        leave_at: int | None = None,
        *,
        raises: bool = False,
    ) -> None:
        if isinstance(headers, Mapping):
            headers = [(name.lower().encode(), text.encode()) for name, text in headers.items()]
        self.scope = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": list(headers),
            "query_string": b"",
        }
        self.sent: list[dict[str, Any]] = []
        self.events = 0
        self._parts = list(parts if parts is not None else [b""])
        self._leave_at = leave_at
        self._raises = raises
        self._gone = asyncio.Event()

    async def run(self, app: Any, within_s: float = 5.0) -> "Caller":
        await asyncio.wait_for(app(self.scope, self._receive, self._send), within_s)
        return self

    def leave(self) -> None:
        self._gone.set()

    @property
    def status(self) -> int:
        return self.sent[0]["status"] if self.sent else 0

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(event["body"] for event in self.sent[1:])

    @property
    def error(self) -> dict[str, Any]:
        return json.loads(self.body)["error"]

    def _count(self) -> None:
        if self._leave_at is not None and self.events >= self._leave_at:
            self._gone.set()
        self.events += 1

    async def _receive(self) -> dict[str, Any]:
        self._count()
        if self._parts and not self._gone.is_set():
            part = self._parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(self._parts)}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, event: dict[str, Any]) -> None:
        self._count()
        if not self._gone.is_set():
            self.sent.append(event)
        elif self._raises:
            raise OSError("nobody is there")
        await asyncio.sleep(0)  # a server may let others run; the watch must get its turn
