"""A component: what outlives its processes, and the supervisor that starts it again.

Its disk, its node's mood and its clock's error belong to the component; everything in memory to the
process and is lost with it. `main` is one life: it is started again after it failed, as a service
manager would, and after it was killed.
"""

import asyncio
import logging
import os
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from chaos.chain.node import ChaosNode
from chaos.machine.disk import ChaosDatabase, Disk
from chaos.machine.loop import Process, get_process
from chaos.world import START_S, World
from hanse.chain import Rpc
from hanse.protocol.errors import HanseError, InvariantError

RESTART_S = 1.0
"""Pause of the supervisor after a component that ended by itself."""

CLOCK_ERROR_S = 28.0
"""How far a clock may be off either way: two of them differ by less than the protocol's 60 s."""


class Component:
    """One component of the world.

    Attributes:
        role: whose keys it has; two components may be one party.
        process: its present life, or its last one.
        clock_error_s: what its wall clock shows too much.
    """

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = self.role = name
        self.lot = world.lot_of(name)
        self.folder: Path = world.folder / name
        self.folder.mkdir(mode=0o700, parents=True)
        path = self.folder / "state.sqlite3"
        self.disk = Disk(path, world.lot_of(f"{name}/disk"), world.counts, world.bug)
        self.node = ChaosNode(world.chain, world.lot_of(f"{name}/node"), world.counts)
        self.clock_error_s = 0.0
        self.process: Process | None = None
        self._life: asyncio.Task[None] | None = None

    @property
    def is_alive(self) -> bool:
        """Whether a process of it runs."""
        return self.process is not None and self.process.alive

    def get_time_s(self) -> float:
        """What its wall clock shows."""
        return START_S + self.world.loop.time() + self.clock_error_s

    def open_database(self) -> ChaosDatabase:
        """Its disk, for the present process."""
        return ChaosDatabase(self.disk)

    def connect(self) -> Rpc:
        """Its node."""
        return Rpc(self.node)

    def start(self) -> None:
        """Begin a life, unless one goes on."""
        if self.is_alive:
            return
        self.world.note(f"start {self.name}")
        self.process = self.world.loop.create_process(self.name)
        self.process.on_death.append(self._on_death)
        self._life = self.process.spawn(self._live())  # asyncio itself holds tasks weakly

    def crash(self, turns: int, down_s: float) -> None:
        """Kill it after so many of its callbacks, and start it again after `down_s`."""
        process = self.process
        if process is None or not process.alive or process.dies_at is not None:
            return
        process.dies_at = process.turns + turns
        process.on_death.append(lambda: self._start_later(down_s))

    async def main(self) -> None:
        """One life; returns or raises only if it cannot go on."""
        raise NotImplementedError

    async def _live(self) -> None:
        while True:
            try:
                await self.main()
            except InvariantError as error:
                self.world.violate(f"{self.name} stopped: {error.code}: {error.message}")
            except HanseError as error:
                self.world.note(f"{self.name} cannot run: {error.code}: {error.message[:200]}")
            except Exception as error:
                where = "".join(traceback.format_tb(error.__traceback__))
                self.world.violate(f"{self.name} broke: {type(error).__name__}: {error}\n{where}")
            await asyncio.sleep(RESTART_S)

    def _on_death(self) -> None:
        self.world.counts["crash"] += 1
        self.world.note(f"crash {self.name}")
        assert self.process is not None
        self.world.crash_sites |= {_find_site(task) for task in self.process.tasks} - {""}

    def _start_later(self, wait_s: float) -> None:
        self.world.loop.call_later(wait_s, self.start)


class Listener:
    """Stands where a process has its HTTP server."""

    def __init__(self, world: World, url: str) -> None:
        self.url = url
        self._world = world
        self._process: Process | None = None

    async def start(self, app: Any) -> None:
        """Serve on the world's network."""
        self._process = get_process()
        assert self._process is not None
        self._world.network.listen(self.url, app, self._process)

    async def stop(self) -> None:
        """Serve no more."""
        if self._process is not None:
            self._world.network.stop_listening(self.url, self._process)


def close_files(path: Path) -> None:
    """What the kernel does for a dead process: the lock on its folder ends."""
    for name in os.listdir("/proc/self/fd"):
        try:
            is_it = os.readlink(f"/proc/self/fd/{name}") == str(path)
        except OSError:
            continue
        if is_it:
            os.close(int(name))


def _find_site(task: "asyncio.Task[Any]") -> str:
    """The innermost line of Hanse's code that a task waits at."""
    site = ""
    at: Any = task.get_coro()
    while at is not None:
        frame = getattr(at, "cr_frame", None) or getattr(at, "ag_frame", None)
        if frame is not None and "hanse" in frame.f_code.co_filename.split("/"):
            site = f"{frame.f_code.co_qualname}:{frame.f_lineno}"
        at = getattr(at, "cr_await", None) or getattr(at, "ag_await", None)
    return site


class ErrorLog(logging.Handler):
    """Errors that the code under test logs are defects, unless they are told apart here."""

    def __init__(self, world: World, is_expected: Callable[[str], bool]) -> None:
        super().__init__(logging.WARNING)
        self._world = world
        self._is_expected = is_expected

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        text = f"{record.name}: {record.getMessage()}"
        self._world.note(f"log {text[:300]}")
        if record.levelno >= logging.ERROR and not self._is_expected(text):
            with suppress(Exception):
                self._world.violate(f"logged as an error: {text[:800]}")
