"""Keeps llama.cpp's server running in a process of its own: starts, watches, restarts, stops it.

Apart from ours so that its threads never hold our interpreter, a crash in native code ends a few
answers instead of the books, and its memory goes back at once when it stops.

| state | what happens | next |
| --- | --- | --- |
| stopped | `start` | loading |
| loading | child says ready / fails / takes too long | ready / stopped, with an error |
| ready | child dies | loading again, at most RESTARTS_MAX times in RESTART_WINDOW_S, then failed |
| any | `stop` | stopped |
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from hanse.engines.base import Progress
from hanse.engines.child_process import load_within, start_child
from hanse.engines.llama.server import ServerConfig
from hanse.protocol.errors import RequestError, TransientError

RESTARTS_MAX = 5
"""Restarts within RESTART_WINDOW_S; a server that dies more often will not get better by itself."""

RESTART_WINDOW_S = 300.0
"""See RESTARTS_MAX."""

RESTART_DELAY_S = 0.2
"""Between a death and the restart, so that a child that dies at once does not fill a core."""

STOP_S = 3.0
"""A child gets this long to leave by itself before it is killed; it has nothing to save."""


class LlamaProcess:
    """One server process and the private folder with its socket."""

    def __init__(
        self,
        make_config: Callable[[str, str, int], ServerConfig],
        *,
        ready_timeout_s: float,
        log_path: str = "",
    ) -> None:
        """Prepare; nothing runs yet.

        Args:
            make_config: from (socket path, API key, our process id).
            ready_timeout_s: the longest that loading may take.
            log_path: file for llama.cpp's own log; dropped if empty.
        """
        self._folder = Path(tempfile.mkdtemp(prefix="hanse-llama-"))  # open to its owner only
        self.socket_path = str(self._folder / "s.sock")
        self.api_key = secrets.token_urlsafe(24)
        self._config = make_config(self.socket_path, self.api_key, os.getpid())
        self._ready_timeout_s = ready_timeout_s
        self._log_path = log_path
        self._child: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._deaths: deque[float] = deque(maxlen=RESTARTS_MAX + 1)
        self.is_ready = False
        self.expf = self.canaries = ""

    @property
    def pid(self) -> int | None:
        """The child's process id while there is one."""
        return self._child.pid if self._child else None

    async def start(self, progress: Progress | None = None) -> None:
        """Start the child and wait until it takes requests.

        Raises:
            RequestError: the model cannot be loaded.
            TransientError: the child died or took too long.
        """
        await self._launch(progress)
        self._watcher = asyncio.create_task(self._watch(), name="llama-watch")

    def kill(self, pid: int | None) -> None:
        """End this child at once, if it still is ours; a new one takes its place."""
        if self._child is not None and self._child.pid == pid and self._child.returncode is None:
            self.is_ready = False
            self._child.kill()

    async def stop(self) -> None:
        """End the child and remove the socket."""
        self.is_ready = False
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
        await self._end_child()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            child = self._child
            if child is not None:
                await child.wait()
            self.is_ready = False
            self._deaths.append(loop.time())
            first = self._deaths[0]
            if len(self._deaths) > RESTARTS_MAX and loop.time() - first < RESTART_WINDOW_S:
                return
            await asyncio.sleep(RESTART_DELAY_S)
            # A failed restart counts as one more death.
            with contextlib.suppress(RequestError, TransientError):
                await self._launch(None)

    async def _launch(self, progress: Progress | None) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket_path)
        self._child = await start_child("hanse.engines.llama.server", self._log_path)
        try:
            await load_within(self._wait_until_ready(self._child, progress), self._ready_timeout_s)
        except BaseException:
            await self._end_child()
            raise
        self.is_ready = True

    async def _wait_until_ready(
        self, child: asyncio.subprocess.Process, progress: Progress | None
    ) -> None:
        assert child.stdin is not None
        assert child.stdout is not None
        with contextlib.suppress(ConnectionError):  # it died; the next read says so
            child.stdin.write(msgspec.json.encode(self._config) + b"\n")
            await child.stdin.drain()
        while line := await child.stdout.readline():
            message = msgspec.json.decode(line)
            if message["state"] == "ready":
                self.expf, self.canaries = message["expf"], message["canaries"]
                return
            if message["state"] == "failed":
                raise RequestError(
                    "configuration_invalid",
                    f"The model could not be loaded: {message['reason']}",
                    param="model_path",
                )
            if progress:
                progress("loading the model", None)
        raise TransientError("engine_unavailable", "The engine's process died while loading.")

    async def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        if child.stdin is not None:
            child.stdin.close()
        try:
            async with asyncio.timeout(STOP_S):
                await child.wait()
        except TimeoutError:
            child.kill()
            await child.wait()
