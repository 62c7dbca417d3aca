"""An asyncio event loop on a virtual clock, whose order of turns comes from a seed.

    loop = VirtualLoop(Random(1))
    process = loop.create_process("broker-1")
    process.spawn(serve())              # everything that it starts belongs to it
    loop.run_for(5.0)
    process.kill()                      # as kill -9: not one more line of it runs
    loop.run_for(5.0)

Time passes only when nothing is ready, so a day takes as long as the work in it. A **process** is
one life of a component: its tasks carry it in a context variable, and every callback that they
cause inherits it. The loop keeps asyncio's promise of first come, first served inside a process,
since code may rely on it, and draws by lot between processes.

A killed process is never finalised: its frames are kept, so that no `finally` and no `async with`
of it runs, ever. That is why whoever runs many seeds ends by `os._exit` (see `chaos.__main__`).

Nothing here may use a thread: work handed to an executor runs in place.

Source: asyncio.BaseEventLoop of CPython 3.11, whose `_run_once` is replaced.
"""

import asyncio
import contextvars
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any
from weakref import WeakSet

TURN_S = 2e-6
"""What one callback takes on the virtual clock: enough that a busy loop cannot stop time."""

_process: "contextvars.ContextVar[Process | None]" = contextvars.ContextVar("process", default=None)
_graveyard: list[object] = []


class Process:
    """One life of a component. `turns` counts its callbacks; `dies_at` is the turn it dies after.

    `on_death` are told once, in order, when it is killed: the kernel's part (files are closed,
    connections break).
    """

    def __init__(self, loop: "VirtualLoop", name: str, number: int) -> None:
        self.loop = loop
        self.name = name
        self.encoded = name.encode()
        self.number = number
        self.alive = True
        self.turns = 0
        self.dies_at: int | None = None
        self.on_death: list[Callable[[], None]] = []
        self.tasks: WeakSet[asyncio.Task[Any]] = WeakSet()
        self.context = contextvars.copy_context()
        self.context.run(_process.set, self)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run something in it."""
        return self.loop.create_task(work, context=self.context.copy())

    def kill(self) -> None:
        """Stop it for good, wherever it is."""
        if not self.alive:
            return
        self.alive = False
        _graveyard.extend(self.tasks)
        _graveyard.append(self)
        for tell in self.on_death:
            tell()


def get_process() -> Process | None:
    """Whose code is running; None for the world's own."""
    return _process.get()


class _Lanes:
    """What is ready, one lane a process. Stands where BaseEventLoop has its deque."""

    def __init__(self, lot: Random) -> None:
        self._lot = lot
        self._lanes: dict[Process | None, deque[asyncio.Handle]] = {}

    def __len__(self) -> int:
        return len(self._lanes)

    def append(self, handle: asyncio.Handle) -> None:
        process = handle._context.get(_process)  # type: ignore[attr-defined]
        if process is not None and not process.alive:
            _graveyard.append(handle)
            return
        self._lanes.setdefault(process, deque()).append(handle)

    def clear(self) -> None:
        self._lanes.clear()

    def pop(self) -> tuple[Process | None, asyncio.Handle]:
        processes = list(self._lanes)
        one = len(processes) == 1
        process = processes[0 if one else int(self._lot.random() * len(processes))]
        lane = self._lanes[process]
        handle = lane.popleft()
        if not lane:
            del self._lanes[process]
        return process, handle


class VirtualLoop(asyncio.BaseEventLoop):
    """See the module."""

    _ready: Any
    _scheduled: "list[asyncio.TimerHandle]"

    def __init__(self, lot: Random) -> None:
        super().__init__()
        self._ready = _Lanes(lot)
        self._now_s = 0.0
        self._numbers: dict[str, int] = {}
        self.on_turn: Callable[[Process | None], None] = lambda process: None
        self.set_task_factory(_make_task)

    def create_process(self, name: str) -> Process:
        """A new life of a component."""
        number = self._numbers[name] = self._numbers.get(name, 0) + 1
        return Process(self, name, number)

    def time(self) -> float:
        """Virtual seconds since the beginning."""
        return self._now_s

    def run_for(self, seconds: float) -> None:
        """Let so much time pass."""
        self.call_later(seconds, self.stop)
        self.run_forever()

    def run_in_executor(  # type: ignore[override]  # in place: any function will do
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> Any:
        """Run it here and now: a thread would not be repeatable."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def _process_events(self, event_list: Any) -> None:
        """There are none: nothing here waits for the operating system."""

    def _write_to_self(self) -> None:
        """Nothing to wake."""

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:
            self._now_s = max(self._now_s, self._scheduled[0].when())
        while self._scheduled and self._scheduled[0].when() <= self._now_s:
            timer = heapq.heappop(self._scheduled)
            timer._scheduled = False  # type: ignore[attr-defined]
            if not timer.cancelled():
                self._ready.append(timer)
        if not self._ready:
            return
        process, handle = self._ready.pop()
        if process is not None and not process.alive:
            _graveyard.append(handle)
            return
        self._now_s += TURN_S
        if handle.cancelled():
            return
        handle._run()
        self.on_turn(process)
        if process is not None:
            process.turns += 1
            if process.dies_at is not None and process.turns >= process.dies_at:
                process.kill()


def _make_task(
    loop: asyncio.AbstractEventLoop, work: Any, context: contextvars.Context | None = None
) -> "asyncio.Task[Any]":
    task = asyncio.Task(work, loop=loop, context=context)
    owner = (context or contextvars.copy_context()).get(_process)
    if owner is not None:
        owner.tasks.add(task)
    return task
