"""A chain of one's own: anvil as a child process, whose state is kept between runs.

    node = LocalNode(home / "chain", chain_id=31337, block_time_s=1.0)
    url = await node.start()     # installs if needed, resumes the saved state
    ...
    await node.stop()            # SIGTERM: anvil writes its state and ends

anvil mines each transaction at once. With `block_time_s` a pulse adds empty blocks until the newest
transaction has its confirmations, and then none: a block in every idle second would add 1.8 kB each
to a state that is written whole (measured; with historical states 160 kB).

What survives: SIGTERM, everything. kill -9 of our process: everything, since anvil runs in a group
of its own, and the next start ends it properly first. kill -9 of anvil itself: all but the last
`STATE_INTERVAL_S`. A state file that was cut in half is replaced by a copy, at most
`COPY_INTERVAL_S` older. The first block stays the same however often it is started, and the clock
never falls back: one that was moved ahead stays as far ahead.

It is a development chain: anyone who reaches its port can do anything with it. It listens on
    loopback only.

Source: anvil 1.7.1 (foundry-rs), its `--state` and `--state-interval`; npm's package
    @foundry-rs/anvil.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from hanse.chain.localnode.anvil_binary import Say, get_anvil
from hanse.chain.rpc import Rpc
from hanse.protocol.errors import RequestError, TransientError

CHAIN_ID_DEFAULT = 31_337
STATE_INTERVAL_S = 1
"""How often anvil writes its state: sooner than two confirmations at a block a second, so that a
confirmed block is saved."""

COPY_INTERVAL_S = 5.0
"""How often a sound state is copied: anvil writes in place, so a kill can cut its file in half."""

START_TIMEOUT_S = 20.0
"""anvil starts in 0.1 s; loading a large state on a busy machine takes longer."""

STOP_TIMEOUT_S = 20.0
"""Time to write the state after SIGTERM before the process is killed."""

_PORT_ATTEMPTS_MAX = 5


class LocalNode:
    """One anvil over one state file. Start, use `url`, stop."""

    def __init__(
        self,
        folder: Path,
        *,
        chain_id: int = CHAIN_ID_DEFAULT,
        port: int = 0,
        block_time_s: float | None = None,
        confirmations: int = 2,
        cache_folder: Path | None = None,
        say: Say = lambda text: None,
        copy_interval_s: float = COPY_INTERVAL_S,
    ) -> None:
        """Nothing happens before `start`.

        Args:
            folder: holds state, process id and log of this chain.
            chain_id: of a new chain; a saved state must have been made with the same.
            port: 0 takes a free one.
            block_time_s: pulse of empty blocks after transactions; None leaves mining to the
                caller.
            confirmations: how many blocks the pulse adds, and how many are mined at start so that
                views at head - confirmations work on the resumed state.
            cache_folder: where anvil is installed if it is not on PATH; `folder` by default.
            say: told, in one line each, what takes time.
            copy_interval_s: how often a sound state is copied.
        """
        self.folder = folder.absolute()
        self.chain_id = chain_id
        self._port = port
        self._block_time_s = block_time_s
        self._confirmations = confirmations
        self._cache_folder = cache_folder or folder
        self._say = say
        self._copy_interval_s = copy_interval_s
        self._process: subprocess.Popen[bytes] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._copied_digest = b""
        self._rpc: Rpc | None = None
        self.url = ""

    @property
    def pid(self) -> int | None:
        """Process id of anvil while it runs."""
        return self._process.pid if self._process else None

    async def start(self) -> str:
        """Install if needed, resume or begin the chain, and return its URL.

        Raises:
            RequestError: `configuration_invalid`: anvil cannot be installed or started; the message
                says how to fix.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        binary = await asyncio.to_thread(get_anvil, self._cache_folder, self._say)
        await self._end_leftover()
        self._verify_chain_id()
        self._repair_state()
        for _ in range(_PORT_ATTEMPTS_MAX):
            if await self._launch(binary, self._port or _free_port()):
                break
            if self._port:
                break
        if self._process is None or self._rpc is None:
            raise RequestError(
                "configuration_invalid",
                f"anvil did not start; its last words in {self._log_path}: {self._last_words()}",
            )
        await self._resume_clock()
        if self._block_time_s is not None:
            await self.mine(self._confirmations + 1)
            self._tasks.append(asyncio.create_task(self._pulse(self._block_time_s)))
        self._tasks.append(asyncio.create_task(self._keep_copies(self._copy_interval_s)))
        return self.url

    async def stop(self) -> None:
        """End anvil by SIGTERM and wait until it has written its state. May be called twice."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self._rpc is not None:
            await self._rpc.close()
            self._rpc = None
        if self._process is not None:
            await _terminate(self._process)
            self._process = None
            self._pid_path.unlink(missing_ok=True)

    async def mine(self, blocks: int = 1) -> None:
        """Add empty blocks now."""
        for _ in range(blocks):
            await self._get_rpc().request("evm_mine", attempts_max=1)

    async def advance_time(self, seconds: int) -> None:
        """Move the chain's clock forward, k blocks deep: a lock time passes at once."""
        await self._get_rpc().request("evm_increaseTime", seconds, attempts_max=1)
        await self.mine(self._confirmations + 1)

    async def fund(self, address: str, wei: int) -> None:
        """Set the native coin of an address, k blocks deep. Only a development chain can."""
        await self._get_rpc().request("anvil_setBalance", address, hex(wei))
        await self.mine(self._confirmations + 1)

    @property
    def _state_path(self) -> Path:
        return self.folder / "anvil-state.json"

    @property
    def _backup_path(self) -> Path:
        return self.folder / "anvil-state.backup.json"

    @property
    def _pid_path(self) -> Path:
        return self.folder / "anvil.pid"

    @property
    def _log_path(self) -> Path:
        return self.folder / "anvil.log"

    def _get_rpc(self) -> Rpc:
        if self._rpc is None:
            raise RequestError("usage", "the local chain is not running; start it first")
        return self._rpc

    async def _launch(self, binary: Path, port: int) -> bool:
        command = [str(binary), "--host", "127.0.0.1", "--port", str(port), "--quiet"]
        command += ["--chain-id", str(self.chain_id), "--state", str(self._state_path)]
        # By default any web page could send it requests through the browser that shows the page.
        command += ["--state-interval", str(STATE_INTERVAL_S), "--no-cors"]
        with self._log_path.open("wb") as log:
            # A session of its own: Ctrl-C in the terminal reaches us, not anvil, so that we stop it
            # in order.
            process = subprocess.Popen(  # noqa: ASYNC220, S603 (own arguments; returns at once)
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # It has no use for our keys' password.
                env={k: v for k, v in os.environ.items() if not k.startswith("HANSE_")},
            )
        self._pid_path.write_text(f"{process.pid}\n")
        rpc = Rpc.connect(f"http://127.0.0.1:{port}")
        try:
            if await _answers(rpc, process):
                self._process, self._rpc, self.url = process, rpc, f"http://127.0.0.1:{port}"
                return True
        finally:
            if self._process is None:  # it ended, was too slow, or we are being cancelled
                await rpc.close()
                await _terminate(process)
        return False

    async def _resume_clock(self) -> None:
        """Go on from the newest block's time: anvil forgets at its end how far it was moved."""
        ahead_s = (await self._get_rpc().fetch_head()).timestamp_s - int(time.time())
        if ahead_s > 0:
            await self._get_rpc().request("evm_increaseTime", ahead_s, attempts_max=1)

    async def _pulse(self, block_time_s: float) -> None:
        """Add blocks while one of the newest `confirmations` holds a transaction."""
        rpc, quiet = self._get_rpc(), ""
        while True:
            await asyncio.sleep(block_time_s)
            with contextlib.suppress(TransientError):
                head = await rpc.fetch_head()
                if head.hash == quiet:
                    continue
                recent = range(max(0, head.number - self._confirmations + 1), head.number + 1)
                headers = await rpc.fetch_headers_at(recent)
                if any(header.transaction_hashes for header in headers):
                    await self.mine()
                else:
                    quiet = head.hash

    async def _end_leftover(self) -> None:
        """End an anvil of ours that outlived its parent, so that it writes its state first."""
        try:
            pid = int(self._pid_path.read_text())
        except (OSError, ValueError):
            return
        # The id may have been given to a stranger since: only a process with our state file in its
        # arguments is ours.
        if str(self._state_path) in _arguments_of(pid) and pid != os.getpid():
            self._say("ending the local chain of an earlier run")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            deadline_s = asyncio.get_running_loop().time() + STOP_TIMEOUT_S
            while _arguments_of(pid):
                if asyncio.get_running_loop().time() > deadline_s:
                    os.kill(pid, signal.SIGKILL)
                await asyncio.sleep(0.02)
        self._pid_path.unlink(missing_ok=True)

    def _verify_chain_id(self) -> None:
        """Refuse another id than the saved chain's, whose signatures would not count under it."""
        path = self.folder / "anvil.chain-id"
        saved = path.read_text().strip() if path.exists() else str(self.chain_id)
        if saved != str(self.chain_id):
            raise RequestError(
                "configuration_invalid",
                f"the chain saved in {self.folder} has id {saved}, asked for is {self.chain_id};"
                " use that id or another folder",
            )
        path.write_text(f"{saved}\n")

    def _repair_state(self) -> None:
        """Put the copy in place of a broken state, take foreign blocks out, keep a new copy."""
        if not self._state_path.exists():
            if not self._backup_path.exists():
                return
            shutil.copyfile(self._backup_path, self._state_path)
        try:
            state = json.loads(self._state_path.read_bytes())
        except ValueError:
            if not self._backup_path.exists():
                raise RequestError(
                    "configuration_invalid",
                    f"{self._state_path} was cut short and there is no copy; remove it to begin"
                    " a new chain",
                ) from None
            self._say("the chain's state was cut short; going back to its last sound copy")
            os.replace(self._backup_path, self._state_path)
            state = json.loads(self._state_path.read_bytes())
        if _drop_added_genesis(state):
            draft = self._state_path.with_suffix(".draft")
            draft.write_text(json.dumps(state))
            os.replace(draft, self._state_path)
        self._copy_state()

    def _copy_state(self) -> None:
        """Copy the state if it is whole at this moment; else leave the older copy."""
        draft = self._backup_path.with_suffix(".draft")
        try:
            data = self._state_path.read_bytes()
            digest = hashlib.sha256(data).digest()
            if digest == self._copied_digest:
                return
            json.loads(data)
        except (OSError, ValueError):
            return
        draft.write_bytes(data)
        os.replace(draft, self._backup_path)
        self._copied_digest = digest

    async def _keep_copies(self, interval_s: float) -> None:
        while True:
            await asyncio.sleep(interval_s)
            await asyncio.to_thread(self._copy_state)

    def _last_words(self) -> str:
        try:
            return self._log_path.read_text("utf-8", "replace")[-300:].strip() or "none"
        except OSError:
            return "none"


def _drop_added_genesis(state: dict[str, Any]) -> bool:
    """Leave the oldest block 0 alone in a saved state; whether there was another.

    anvil makes a block 0 at every start and saves it beside the loaded one. From the third start on
    there are two to load, in no fixed order: if the wrong one wins, nobody knows the chain again.
    """
    blocks = state.get("blocks", [])
    first = [block for block in blocks if int(block["header"]["number"], 16) == 0]
    if len(first) < 2:
        return False
    own = min(first, key=lambda block: int(block["header"]["timestamp"], 16))
    state["blocks"] = [own, *(block for block in blocks if block not in first)]
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _arguments_of(pid: int) -> str:
    """The command line of a living process; "" if there is none."""
    if Path("/proc/self/cmdline").exists():
        try:
            raw = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return ""
        return raw.replace(b"\0", b" ").decode("utf-8", "replace").strip()
    done = subprocess.run(  # noqa: S603 (fixed arguments)
        ["ps", "-ww", "-o", "stat=,args=", "-p", str(pid)],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    line = done.stdout.strip()
    return "" if line.startswith("Z") else line


async def _answers(rpc: Rpc, process: "subprocess.Popen[bytes]") -> bool:
    """Wait until the node answers; False if it ended or took too long."""
    clock = asyncio.get_running_loop().time
    deadline_s = clock() + START_TIMEOUT_S
    while process.poll() is None and clock() < deadline_s:
        try:
            await rpc.request("eth_chainId", attempts_max=1)
        except TransientError:
            await asyncio.sleep(0.02)
        else:
            return True
    return False


async def _terminate(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.to_thread(process.wait, STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        await asyncio.to_thread(process.wait)
