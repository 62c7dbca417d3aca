"""What the chain tests share: funded keys, a clock turned by hand, transports that lie and lose."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from hanse.chain import HttpTransport, Key, OutboxEntry, Rpc, create_key
from hanse.chain.storage import MemoryOutboxStorage
from hanse.protocol.errors import TransientError

CHAIN_ID = 31_337


class Clock:
    """A monotonic clock that only moves when told."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


async def make_funded_key(rpc: Rpc, wei: int = 10**20) -> Key:
    key = create_key()
    await rpc.request("anvil_setBalance", key.address, hex(wei))
    await rpc.request("evm_mine")
    return key


async def mine(rpc: Rpc, blocks: int = 1) -> None:
    for _ in range(blocks):
        await rpc.request("evm_mine")


async def poll(condition: Callable[[], Awaitable[Any]], within_s: float = 10.0) -> Any:
    """Wait until the condition gives something true, at most `within_s`."""
    deadline_s = time.monotonic() + within_s
    while not (found := await condition()):
        assert time.monotonic() < deadline_s, f"{condition} did not come true in {within_s} s"
        await asyncio.sleep(0.005)
    return found


class FaultyTransport:
    """A real node seen through faults. Each hook sees one request and may change its fate.

    before(method, params) -> None, or raise instead of sending
    after(method, params, answer) -> answer, possibly another one
    """

    def __init__(self, url: str) -> None:
        self._inner = HttpTransport(url)
        self.before: Callable[[str, list[Any]], None] = lambda method, params: None
        self.after: Callable[[str, list[Any], Any], Any] = lambda method, params, answer: answer
        self.sent: list[str] = []

    async def exchange(self, body: bytes) -> bytes:
        request = msgspec.json.decode(body)
        if isinstance(request, list):
            for item in request:
                self.before(item["method"], item["params"])
            answers = msgspec.json.decode(await self._inner.exchange(body))
            by_id = {item["id"]: item for item in request}
            return msgspec.json.encode(
                [self._see(by_id[answer["id"]], answer) for answer in answers]
            )
        self.before(request["method"], request["params"])
        self.sent.append(request["method"])
        answer = msgspec.json.decode(await self._inner.exchange(body))
        return msgspec.json.encode(self._see(request, answer))

    def _see(self, request: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        if "result" in answer:
            found = self.after(request["method"], request["params"], answer["result"])
            return {**answer, "result": found}
        return answer

    async def close(self) -> None:
        await self._inner.close()


class Crash(BaseException):
    """The process dies here. Not an Exception, so that no handler outlives it."""


class CrashingStorage(MemoryOutboxStorage):
    """Dies at the n-th write, before or after it took effect."""

    def __init__(self) -> None:
        super().__init__()
        self.writes_left: int | None = None
        self.dies_after_write = False

    async def put_entries(self, entries: Any) -> None:
        if self.writes_left == 0 and not self.dies_after_write:
            raise Crash
        await super().put_entries(entries)
        if self.writes_left == 0:
            raise Crash
        if self.writes_left is not None:
            self.writes_left -= 1


def lose() -> TransientError:
    return TransientError("chain_unavailable", "lost on purpose")


def is_open(entry: OutboxEntry | None) -> bool:
    return entry is not None and not entry.is_final
