"""Keeps the processes of `hanse.engines.audio.listener`: lends them, ends them, starts them anew.

    listeners = Listeners(config, places=1, spares=0, ready_timeout_s=60)
    await listeners.start()
    heard = await listeners.ask(Ask(file=body, response_format="json"))

A request has a process for itself. If it is cancelled, that process is killed within milliseconds,
whatever it was doing, and a new one loads at once; a request that comes meanwhile takes a spare or
waits for it.

| a process | what happens | next |
| --- | --- | --- |
| loading | is ready / dies, refuses, is late | idle / loading again after RELOAD_DELAY_S |
| idle | a request comes / it dies | at work / loading again |
| at work | answers / its request is cancelled, or it dies | idle / loading again |
| any | `close` | gone |
"""

import asyncio
import contextlib
from collections import deque

import msgspec

from hanse.engines.audio.listener import (
    LENGTH_BYTES,
    Ask,
    Config,
    Heard,
    Ready,
    Refused,
    Reply,
    frame,
)
from hanse.engines.child_process import load_within, start_child
from hanse.protocol.errors import HanseError, RequestError, TransientError

RELOAD_DELAY_S = 2.0
"""After a load that failed, or a process that died idle: one that cannot work fills no core."""

REPLY_BYTES_MAX = 64 * 2**20
"""Of one answer; a process that was taken over by a file it decoded cannot fill our memory."""


class Listeners:
    """See the module.

    Attributes:
        active: how many requests are being heard.
        load_s: how long the newest process took from its start until it could hear.
    """

    def __init__(
        self,
        config: Config,
        *,
        places: int,
        spares: int,
        ready_timeout_s: float,
        log_path: str = "",
    ) -> None:
        """Prepare; nothing runs yet.

        Args:
            config: for each process.
            places: requests at once; more wait.
            spares: processes beyond those, for who comes after one that was cancelled.
            ready_timeout_s: the longest that loading may take.
            log_path: file for what the libraries write; dropped if empty.
        """
        self._config = config
        self._count = places + spares
        self._needed = places
        self._places = asyncio.Semaphore(places)
        self._ready_timeout_s = ready_timeout_s
        self._log_path = log_path
        self._idle: deque[asyncio.subprocess.Process] = deque()
        self._running: set[asyncio.subprocess.Process] = set()
        self._keepers: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()
        self._failure: HanseError | None = None
        self.active = 0
        self.load_s = 0.0

    @property
    def pids(self) -> list[int]:
        """The processes that have loaded, for operators and tests."""
        return [process.pid for process in self._running]

    @property
    def is_up(self) -> bool:
        """Whether a request would be heard now, or as soon as a process has loaded."""
        return bool(self._idle) or (bool(self._keepers) and self._failure is None)

    async def start(self) -> None:
        """Start the processes; returns when every place has one.

        Raises:
            RequestError: the model cannot be loaded.
            TransientError: a process died or took too long.
        """
        self._keepers = [asyncio.create_task(self._keep()) for _ in range(self._count)]
        try:
            while len(self._idle) < self._needed:
                await self._wait_for_change()
                if self._failure is not None:
                    raise self._failure
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Kill them all; they have nothing to save."""
        keepers, self._keepers = self._keepers, []
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        self._changed.set()

    async def ask(self, ask: Ask) -> Heard:
        """What a process makes of it; leaving early kills that process.

        Raises:
            RequestError: the caller can fix it.
            TransientError: the process died, or none can be had.
        """
        async with self._places:
            process = await self._take()
            self.active += 1
            try:
                reply = await _exchange(process, ask)
                if isinstance(reply, Ready):
                    raise EOFError("This is no answer.")
            except BaseException as error:
                _kill(process)
                self._running.discard(process)
                if isinstance(error, OSError | EOFError | msgspec.MsgspecError):
                    raise TransientError(
                        "engine_unavailable",
                        "The engine's process ended while it listened; send the request again.",
                        retry_after_s=2,
                    ) from error
                raise
            finally:
                self.active -= 1
            if process in self._running:
                self._idle.append(process)
                self._changed.set()
        if isinstance(reply, Refused):
            raise RequestError(reply.code, reply.message, param=reply.param)
        return reply

    async def _take(self) -> asyncio.subprocess.Process:
        while not self._idle:
            if self._failure is not None or not self._keepers:
                raise TransientError(
                    "engine_unavailable",
                    "The engine is not running or cannot load its model.",
                    retry_after_s=2,
                ) from self._failure
            await self._wait_for_change()
        return self._idle.popleft()

    async def _wait_for_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _keep(self) -> None:
        """One process after another."""
        while True:
            try:
                process = await self._launch()
            except (RequestError, TransientError) as error:
                self._failure = error
                self._changed.set()
                await asyncio.sleep(RELOAD_DELAY_S)
                continue
            self._running.add(process)
            self._idle.append(process)
            self._failure = None
            self._changed.set()
            try:
                await process.wait()
            finally:
                self._running.discard(process)
                was_idle = process in self._idle
                if was_idle:
                    self._idle.remove(process)
                await _end(process)
            if was_idle:
                await asyncio.sleep(RELOAD_DELAY_S)

    async def _launch(self) -> asyncio.subprocess.Process:
        began_s = asyncio.get_running_loop().time()
        process = await start_child("hanse.engines.audio.listener", self._log_path)
        try:
            reply = await load_within(_exchange(process, self._config), self._ready_timeout_s)
        except BaseException as error:
            await _end(process)
            if isinstance(error, OSError | EOFError | msgspec.MsgspecError):
                raise TransientError(
                    "engine_unavailable", "The engine's process died while loading."
                ) from error
            raise
        if isinstance(reply, Refused):
            await _end(process)
            raise RequestError(reply.code, reply.message, param=reply.param)
        assert isinstance(reply, Ready)
        self.load_s = asyncio.get_running_loop().time() - began_s
        return process


async def _exchange(process: asyncio.subprocess.Process, message: Ask | Config) -> Reply:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(frame(message))
    await process.stdin.drain()
    head = await process.stdout.readexactly(LENGTH_BYTES)
    length = int.from_bytes(head, "big")
    if length > REPLY_BYTES_MAX:
        raise EOFError
    packed = await process.stdout.readexactly(length)
    reply: Reply = msgspec.msgpack.decode(packed, type=Reply)
    return reply


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill it, wait for it, close its pipes."""
    if process.returncode is None:
        _kill(process)
    if process.stdin is not None:
        process.stdin.close()
    await process.wait()
