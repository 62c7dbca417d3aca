"""A process that serves until it is told to stop, or until something that must not end has ended.

    loops = Loops("broker", on_failed=broker.begin_draining)
    loops.spawn(index.run())                      # runs for ever; its end ends the process
    loops.repeat(30.0, rounds.maintain)           # one line for another duty
    await run_until_signal(process, on_ready)     # SIGTERM, SIGINT, or `process.failed`
    await loops.stop()

A `HanseError` of a repeated duty is logged once and the duty is tried again after its interval; an
`InvariantError` and everything unexpected ends the process, since nothing that goes wrong with
money may go on unseen.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, Self, TypeVar

from hanse.protocol.errors import HanseError, InvariantError
from hanse.serving.server import HttpServer

_log = logging.getLogger(__name__)


class Loops:
    """The background tasks of one process.

    Attributes:
        failed: done, with the reason, when a loop has ended and the process must stop.
    """

    def __init__(self, name: str, on_failed: Callable[[], None] = lambda: None) -> None:
        self._name = name
        self._on_failed = on_failed
        self._tasks: list[asyncio.Task[None]] = []
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something that never ends."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._on_ended)
        self._tasks.append(task)

    def repeat(self, interval_s: float, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work` every `interval_s`, for the first time after one interval; 0 for never."""
        if interval_s > 0:
            self.spawn(_repeat(interval_s, work))

    async def stop(self) -> None:
        """Cancel all loops and wait for them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def close(self) -> None:
        """Let go of `failed`, once nobody waits for it any more."""
        if self.failed.done():
            self.failed.exception()  # looked at, so that nobody warns
        else:
            self.failed.cancel()

    def _on_ended(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled() or self.failed.done():
            return
        error = task.exception()
        # an unexpected error's text may hold anything, ours never holds secrets
        reason = error.message if isinstance(error, HanseError) else type(error).__name__
        _log.error("a loop of the %s ended: %s", self._name, reason)
        self._on_failed()
        self.failed.set_exception(error or RuntimeError("a loop ended"))


class ServingProcess:
    """What every process with a server and loops has; brokers and recorders stand on it.

    Attributes:
        server: where it listens; from the middle of the start on.
    """

    server: HttpServer

    def __init__(self, name: str, on_failed: Callable[[], None] = lambda: None) -> None:
        self._closers = contextlib.AsyncExitStack()
        self._loops = Loops(name, on_failed)

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.server.url

    @property
    def failed(self) -> "asyncio.Future[None]":
        """See `Loops.failed`."""
        return self._loops.failed

    async def _begin(self, start: Awaitable[None]) -> Self:
        """This process once it has started; what was opened is closed if that fails."""
        try:
            await start
        except BaseException:
            await self._close()
            raise
        return self

    async def _close(self) -> None:
        await self._loops.stop()
        await self._closers.aclose()
        self._loops.close()


class Process(Protocol):
    """What `run_until_signal` waits for and stops."""

    @property
    def failed(self) -> "asyncio.Future[None]":
        """See `Loops.failed`."""

    async def stop(self) -> None:
        """Finish what is at work, and close."""


ProcessT = TypeVar("ProcessT", bound=Process)


async def run_until_signal(process: ProcessT, on_ready: Callable[[ProcessT], None]) -> None:
    """Tell that a process is ready, and stop it at SIGTERM, SIGINT, or when it failed.

    Raises:
        HanseError: why it failed.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    process.failed.add_done_callback(lambda future: stop.set())
    try:
        on_ready(process)
        await stop.wait()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        failed = process.failed.exception() if process.failed.done() else None
        await process.stop()
    if failed is not None:
        raise failed


async def _repeat(interval_s: float, work: Callable[[], Awaitable[None]]) -> None:
    said = ""
    while True:
        await asyncio.sleep(interval_s)
        try:
            await work()
            said = ""
        except InvariantError:
            raise
        except HanseError as error:
            if error.message != said:  # once, though it may go on for hours
                said = error.message
                _log.warning("will try again every %s s: %s", interval_s, said)
