"""A whole network on this machine: chain, contracts, keys, providers, gateway.

    async with LocalNetwork(home, plans, say=print) as network:
        network.gateway_url, network.rpc_url, network.processes

What `hanse up`, the benchmarks and the tests of the whole stand on. Everything that runs here is
the real thing, started by the same commands that a person would type: `hanse provider start`,
`hanse gateway start`. What is local about it: the chain is a development node, the asset is one
that anyone may mint, and the keys' password lies in a file beside them.

State stays in `home`: a second start resumes the same chain, keys, books and ports.
"""

import asyncio
import contextlib
import fcntl
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from hanse.chain import Key, MemoryOutboxStorage, Rpc, create_keystore, unlock_keystore
from hanse.chain.asset import Asset
from hanse.chain.deployment import Deployment, deploy
from hanse.chain.keys import Scrypt
from hanse.chain.localnode import LocalNode
from hanse.chain.outbox import Outbox
from hanse.chain.registry import Registry
from hanse.cli.network import FILE_NAME, Network, fetch_network, load_network, save_network
from hanse.cli.session import LOCAL_PASSWORD, Session
from hanse.contracts.deployment import PanelTerms, Terms
from hanse.http import fetch_status
from hanse.protocol.errors import InvariantError, RequestError, TransientError

CONFIRMATIONS = 2
"""Blocks on top of a local transaction before it counts; the local chain makes one a second."""

LOCK_TIME_S = 3_600
"""The shortest that the contracts allow; `hanse up` moves the local chain's clock over it."""

PANELS = PanelTerms(
    lot_stake=100_000_000,
    bond=20_000_000,
    seat_fee=500_000,
    seats=3,
    appeal_seats=5,
    audit_window_s=86_400,
    vote_time_s=300,
    reveal_time_s=300,
    appeal_time_s=60,
    answer_time_s=60,
)
"""Panels of the local chain, as small as the contract allows, at the usual prices. A vote ends as
soon as all are in; its times are for a machine that does something else besides."""

RECORD_INTERVAL_BLOCKS = CONFIRMATIONS
"""Blocks between commits of the local recorder. The local chain rests once a transaction has its
confirmations: with a longer interval what is bought then would wait for the next transaction."""

NATIVE_WEI = 10**21
"""Native coin for each local key: 1,000, so that no local run ever lacks gas."""

READY_TIMEOUT_S = 180.0
"""The longest that a process may take to get ready: on a busy machine a model loads for a
minute.
"""

READY_ANSWER_S = 2.0
"""For one answer on a process's health; asked again when it does not come."""

STOP_TIMEOUT_S = 60.0
"""After SIGTERM a process finishes what it is at; then it is killed."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class ProviderPlan:
    """One provider to run.

    Attributes:
        name: of its keys and books.
        input_price, output_price: per million tokens, in whole units of the asset.
        engine: `llama`, `upstream` or `echo` (a fake).
        model: name to offer; "" for the engine's own.
        engine_settings: further settings of the engine.
        embeddings_price: per million tokens, for a second service of vectors; "" for none.
        options: further options of `hanse provider start`.
    """

    name: str
    input_price: str
    output_price: str
    engine: str = "llama"
    model: str = ""
    engine_settings: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    embeddings_price: str = ""


@dataclass
class ChildProcess:
    """A command of ours that runs beside us."""

    name: str
    url: str
    process: asyncio.subprocess.Process
    log_path: Path


class LocalNetwork:
    """See the module. Use it with `async with`."""

    def __init__(
        self,
        home: Path,
        plans: Sequence[ProviderPlan],
        *,
        gateway_port: int = 0,
        say: Say = lambda text: None,
    ) -> None:
        self.home = home
        self.plans = tuple(plans)
        self.session = Session(home=home)
        self.processes: dict[str, ChildProcess] = {}
        self.node = LocalNode(
            home / "chain",
            block_time_s=1.0,
            confirmations=CONFIRMATIONS,
            cache_folder=home / "cache",
            say=say,
        )
        self.network: Network
        self._gateway_port = gateway_port
        self._say = say
        self._password = ""
        self._closers = contextlib.AsyncExitStack()

    async def __aenter__(self) -> "LocalNetwork":
        try:
            self._lock_home()
            self._password = _load_password(self.home)
            self._say("starting the local chain")
            await self.node.start()
            self._closers.push_async_callback(self.node.stop)
            self.network = await self._load_or_deploy()
        except BaseException:
            await self._closers.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name in reversed(list(self.processes)):
            await self.stop_process(name)
        await self._closers.aclose()

    @property
    def deployment(self) -> Deployment:
        """The contracts of this network."""
        return self.network.deployment

    @property
    def rpc_url(self) -> str:
        """The local chain's node."""
        return self.node.url

    @property
    def gateway_url(self) -> str:
        """Base URL for OpenAI clients, with the version."""
        return f"{self.processes['gateway'].url}/v1"

    def get_key(self, name: str) -> Key:
        """A local key, made on first use."""
        path = self.session.get_key_path(name)
        if path.is_file():
            return unlock_keystore(path, self._password)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return create_keystore(path, self._password, scrypt=Scrypt.LIGHT)

    @contextlib.asynccontextmanager
    async def open_outbox(self, name: str) -> AsyncIterator[Outbox]:
        """An outbox for one of our keys that lives as long as the block."""
        async with Rpc.connect(self.rpc_url) as rpc:
            outbox = Outbox(
                rpc,
                self.get_key(name),
                MemoryOutboxStorage(),
                chain_id=self.node.chain_id,
                confirmations=CONFIRMATIONS,
            )
            loop = asyncio.create_task(outbox.run())
            try:
                yield outbox
            finally:
                loop.cancel()
                await asyncio.gather(loop, return_exceptions=True)

    async def give(self, name: str, amount: int) -> None:
        """Native coin and `amount` base units of the test asset for one of our keys."""
        address = self.get_key(name).address
        await self.node.fund(address, NATIVE_WEI)
        if amount:
            async with self.open_outbox("deployer") as outbox, Rpc.connect(self.rpc_url) as rpc:
                asset = Asset(rpc, self.deployment.asset)
                await outbox.submit(secrets.token_hex(8), asset.mint(address, amount))

    async def start_providers(self) -> None:
        """Start all providers; each registers, publishes its offer and serves."""
        for plan in self.plans:
            await self.prepare_provider(plan)
        await asyncio.gather(*(self.start_provider(plan) for plan in self.plans))

    async def start_provider(self, plan: ProviderPlan) -> ChildProcess:
        """Start one provider and wait until it admits requests."""
        port = self._get_port(plan.name)
        arguments = ["provider", "start", "--name", plan.name, "--engine", plan.engine]
        arguments += ["--register", "--port", str(port)]
        arguments += ["--input-price", plan.input_price, "--output-price", plan.output_price]
        if plan.model:
            arguments += ["--model", plan.model]
        if plan.embeddings_price:
            arguments += ["--embeddings-price", plan.embeddings_price]
        for key, value in plan.engine_settings.items():
            arguments += ["--engine-setting", f"{key}={value}"]
        return await self._start(plan.name, port, [*arguments, *plan.options])

    async def start_recorder(self) -> ChildProcess:
        """Start a recorder, and name it to whoever starts after it."""
        await self.node.fund(self.get_key("recorder").address, NATIVE_WEI)
        port = self._get_port("recorder")
        arguments = ["recorder", "start", "--port", str(port)]
        child = await self._start(
            "recorder", port, [*arguments, "--every-blocks", str(RECORD_INTERVAL_BLOCKS)]
        )
        self.network = msgspec.structs.replace(self.network, recorders=(child.url,))
        save_network(self.home, self.network)
        return child

    async def start_gateway(self, *options: str) -> ChildProcess:
        """Start the gateway, which pays with the user's money by its own session key."""
        self.get_key("user")
        self.get_key("gateway")
        port = self._get_port("gateway", self._gateway_port)
        arguments = ["gateway", "start", "--key", "user", "--signer", "gateway"]
        return await self._start("gateway", port, [*arguments, "--port", str(port), *options])

    async def run_command(self, *arguments: str) -> Any:
        """Run a command of ours with `--json` on this network and return its document.

        Raises:
            InvariantError: it failed; the message is its own.
        """
        process = await asyncio.create_subprocess_exec(
            *self._get_command(arguments, "--json"),
            env=self._get_environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        shown, failed = await process.communicate()
        if process.returncode != 0:
            last = failed.decode(errors="replace").strip().splitlines()[-1:]
            raise InvariantError(
                "internal_error", f"hanse {' '.join(arguments)} failed: {''.join(last)}"
            )
        return msgspec.json.decode(shown)

    async def stop_process(self, name: str) -> None:
        """End one of our processes in order: SIGTERM, and SIGKILL only if it hangs."""
        child = self.processes.pop(name)
        if child.process.returncode is not None:
            return
        child.process.terminate()
        try:
            await asyncio.wait_for(child.process.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            child.process.kill()
            await child.process.wait()

    async def kill_process(self, name: str) -> None:
        """End one of our processes at once, as a crash would (SIGKILL)."""
        child = self.processes.pop(name)
        with contextlib.suppress(ProcessLookupError):
            child.process.kill()
        await child.process.wait()

    async def prepare_provider(self, plan: ProviderPlan) -> None:
        """Keys, native coin, and the stake that registering takes."""
        await self.node.fund(self.get_key(f"{plan.name}-receipt").address, NATIVE_WEI)
        owner = self.get_key(plan.name).address
        async with Rpc.connect(self.rpc_url) as rpc:
            registry = Registry(rpc, self.deployment.registry)
            block = (await rpc.fetch_head()).number
            known = (await registry.read_provider(owner, block=block)).is_registered
            stake = await registry.read_minimum_stake(block=block)
        await self.give(plan.name, 0 if known else stake)

    async def _load_or_deploy(self) -> Network:
        if (self.home / FILE_NAME).exists():
            deployment = load_network(self.home).deployment
            try:
                network = await fetch_network(self.rpc_url, deployment)
            except RequestError as error:
                raise RequestError(
                    "configuration_invalid",
                    f"{error.message}; the books in {self.home} belong to another chain: "
                    "remove that folder to begin anew",
                ) from None
        else:
            self._say("deploying the contracts")
            await self.node.fund(self.get_key("deployer").address, NATIVE_WEI)
            async with self.open_outbox("deployer") as outbox, Rpc.connect(self.rpc_url) as rpc:
                terms = Terms(lock_time_s=LOCK_TIME_S, panels=PANELS)
                made = await deploy(rpc, outbox, terms, confirmations=CONFIRMATIONS)
            network = await fetch_network(self.rpc_url, made)
        save_network(self.home, network)
        return network

    async def start_silent(self, name: str, arguments: list[str]) -> ChildProcess:
        """Start a command that stays and serves nothing; what it says is in its log."""
        return await self._spawn(name, 0, arguments)

    async def _start(self, name: str, port: int, arguments: list[str]) -> ChildProcess:
        child = await self._spawn(name, port, arguments)
        await self._wait_ready(child)
        return child

    async def _spawn(self, name: str, port: int, arguments: list[str]) -> ChildProcess:
        log_folder = self.home / "logs"
        log_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        log_path = log_folder / f"{name}.log"
        with log_path.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *self._get_command(arguments, "--while-stdin-open"),
                env=self._get_environment(),
                stdin=asyncio.subprocess.PIPE,  # closes however we end, and takes it along
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches us; we stop it in order
            )
        child = ChildProcess(name, f"http://127.0.0.1:{port}", process, log_path)
        self.processes[name] = child
        return child

    async def _wait_ready(self, child: ChildProcess) -> None:
        deadline = asyncio.get_running_loop().time() + READY_TIMEOUT_S
        while asyncio.get_running_loop().time() < deadline:
            if child.process.returncode is not None:
                raise TransientError(
                    "engine_unavailable",
                    f"{child.name} ended with {child.process.returncode}: "
                    f"{_read_end(child.log_path)}",
                )
            with contextlib.suppress(OSError):
                if await fetch_status(f"{child.url}/health", within_s=READY_ANSWER_S) == 200:
                    return
            await asyncio.sleep(0.1)
        raise TransientError(
            "engine_unavailable",
            f"{child.name} was not ready after {READY_TIMEOUT_S:.0f} s; see {child.log_path}",
        )

    def _get_command(self, arguments: Sequence[str], *extra: str) -> list[str]:
        home = str(self.home)
        return [sys.executable, "-m", "hanse.cli", *arguments, "--home", home, *extra]

    def _get_environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("HANSE_")}
        return {**kept, "HANSE_PASSWORD": self._password, "PYTHONUNBUFFERED": "1"}

    def _get_port(self, name: str, wanted: int = 0) -> int:
        """The port of last time while it is free, so that published offers stay right."""
        path = self.home / "ports.json"
        ports: dict[str, int] = msgspec.json.decode(path.read_bytes()) if path.exists() else {}
        port = wanted or ports.get(name, 0)
        if not port or not _is_free(port):
            port = find_free_port()
        path.write_bytes(msgspec.json.encode({**ports, name: port}))
        return port

    def _lock_home(self) -> None:
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (self.home / "up.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise RequestError(
                "configuration_invalid",
                f"a local network is already running in {self.home}: "
                "stop it first, or use another --home",
            ) from None
        self._closers.callback(lock.close)


def _load_password(home: Path) -> str:
    """The local keys' password, made on first use: it guards nothing but test money."""
    path = home / LOCAL_PASSWORD
    if not path.exists():
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_urlsafe(24))
    return path.read_text().strip()


def _read_end(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return " / ".join(lines[-3:])[-600:] or "it said nothing"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def find_free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
