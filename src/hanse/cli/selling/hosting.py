"""Runs a hosted gateway for `hanse gateway host`: a gateway, and a broker that sells its answers.

    user  --voucher-->  broker  --API key-->  gateway  --voucher-->  provider
          <--receipt--          <--answer---           <--receipt--

Both halves are what `hanse provider start` and `hanse gateway start` run, with the same books and
contracts. The gateway is a process of its own on loopback; the broker is this one, its engine is
`upstream`, its upstream that gateway. Prices follow the market's by the margin; the leader of
several brokers publishes them, the others take them over.
"""

import asyncio
import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from hanse.cli.buying.market import look_at_market
from hanse.cli.control import hold_folder
from hanse.cli.network import Network, load_network
from hanse.cli.selling.broker import Beside, prepare
from hanse.cli.selling.resale import PPM, Name, Resale, plan_resale
from hanse.cli.session import Session
from hanse.engines import open_engine
from hanse.gateway.keys import KeyTerms, open_api_keys
from hanse.protocol.errors import HanseError, RequestError, TransientError
from hanse.protocol.signatures import Address
from hanse.protocol.wire import Operation
from hanse.provider import BrokerProcess, Service
from hanse.serving.process import run_until_signal
from hanse.store import open_database

SOLD = (Operation.CHAT, Operation.COMPLETION, Operation.EMBEDDINGS)
"""What is bought and sold by the token of text; audio and images are not hosted."""

KEY_VARIABLE = "HANSE_HOST_KEY"
"""Where the broker's engine finds its API key of the gateway: in this process alone."""

READY_S = 60.0
"""For the gateway to open its books, discover and listen."""

STOP_S = 90.0
"""For the gateway to finish what is at work; longer than its own limit."""

SERVICES_FILE = "services.json"

_log = logging.getLogger(__name__)


async def host(session: Session, options: dict[str, Any]) -> None:
    """Host a gateway from the command's options until it is stopped.

    Raises:
        HanseError: a key, the registration, the market or the chain is not in order.
    """
    network, name = load_network(session.home), str(options["name"])
    folder = session.get_provider_folder(name)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(hold_folder(folder))
        settings, keys = await prepare(session, network, options, folder)
        market = Market(session, network, settings.provider, options)
        resales = await market.plan()
        if not resales:
            raise TransientError("no_provider", "nobody else offers what could be sold here")
        gateway, url = await stack.enter_async_context(_run_gateway(session, name, options))
        text = await stack.enter_async_context(_lend_key(session, name))
        stack.enter_context(_set_variable(text))
        services = _make_services(folder, resales, url, market.margin_ppm)
        process = await BrokerProcess.start(settings, keys, services)
        beside = Beside(session, network, folder, keys.receipt.address, stack)

        def begin(process: BrokerProcess) -> None:
            beside.start(process)
            following = market.follow(process, _read_numbers(folder), options["reprice_s"])
            for work in (following, _watch(gateway, process)):
                stack.callback(asyncio.create_task(work).cancel)

        await run_until_signal(process, begin)
    session.output.note("Stopped; every request at work was finished or cut, and is in the books.")


class Market:
    """What others ask, and what is to be asked for it here.

    Attributes:
        margin_ppm: between the two.
    """

    def __init__(
        self, session: Session, network: Network, own: Address, options: dict[str, Any]
    ) -> None:
        self._session, self._network, self._own = session, network, own
        self._count = options["fund_providers"]
        self.margin_ppm = round(options["margin_percent"] * PPM / 100)
        self._models = tuple(options["model"])

    async def plan(self) -> dict[Name, Resale]:
        """Prices as of now."""
        report = await look_at_market(self._session, self._network)
        return plan_resale(
            (seen.listed for seen in report.offers),
            own=self._own,
            count=self._count,
            margin_ppm=self.margin_ppm,
            models=self._models,
        )

    async def follow(self, process: BrokerProcess, numbers: dict[str, int], every_s: float) -> None:
        """Ask what the market asks, and the margin, for ever."""
        last: dict[int, Any] = {}
        while True:
            await asyncio.sleep(every_s)
            try:
                resales = await self.plan()
                prices = {
                    numbers[_to_text(name)]: resale.prices
                    for name, resale in resales.items()
                    if _to_text(name) in numbers
                }
                if prices != last:
                    await process.reprice(prices)
                    last = prices
            except HanseError as error:
                _log.warning("prices stay as they are: %s", error.message)


async def _watch(gateway: asyncio.subprocess.Process, process: BrokerProcess) -> None:
    """Without its gateway the broker has nothing to sell."""
    code = await gateway.wait()
    if not process.failed.done():
        process.failed.set_exception(
            TransientError("engine_unavailable", f"the gateway ended with {code}")
        )


@contextlib.asynccontextmanager
async def _run_gateway(
    session: Session, name: str, options: dict[str, Any]
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """The gateway's process and base URL, while it runs."""
    arguments = ["gateway", "start", "--home", str(session.home), "--json", "--port", "0"]
    arguments += ["--key", options["key"], "--fund-never", session.get_key_address(name)]
    for option in ("fund_to", "fund_below", "fund_per_day", "signer", "return_to"):
        if options[option] is not None:
            arguments += ["--" + option.replace("_", "-"), options[option]]
    arguments += ["--idle-hours", str(options["idle_hours"])]
    arguments += ["--fund-providers", str(options["fund_providers"])]
    arguments += ["--keyring"] if options["keyring"] else []
    arguments.append("--while-stdin-open")  # else it would outlive a broker that is killed
    for model in options["model"]:
        arguments += ["--fund-model", model]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if session.database:
        environment["HANSE_DATABASE"] = session.database
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hanse.cli", *arguments),
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C reaches us; it is stopped in order, after the broker
    )
    try:
        yield process, await _read_url(process)
    finally:
        if process.returncode is None:
            process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), STOP_S)
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _read_url(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None  # a pipe, as asked
    try:
        line = await asyncio.wait_for(process.stdout.readline(), READY_S)
        return str(json.loads(line)["base_url"])
    except (TimeoutError, ValueError):
        raise TransientError(
            "engine_unavailable",
            f"the gateway did not start within {READY_S:g} s; what it said stands above",
        ) from None


@contextlib.asynccontextmanager
async def _lend_key(session: Session, name: str) -> AsyncIterator[str]:
    """An API key of the gateway for the broker; those of earlier runs that were cut short end."""
    database = await open_database(session.get_database_path("gateway"))
    try:
        keys = await open_api_keys(database, time.time)
        label = f"host-{name}"[:64]
        paths = (*(operation.path for operation in SOLD), "/v1/models")
        for old in await keys.list():
            if old.name == label and old.revoked_at is None and not session.database:
                await keys.revoke(old.id)
        key, text = await keys.create(label, KeyTerms(paths=paths, unjudged=True))
        try:
            yield text
        finally:
            await keys.revoke(key.id)
    finally:
        await database.close()


@contextlib.contextmanager
def _set_variable(text: str) -> Any:
    os.environ[KEY_VARIABLE] = text
    try:
        yield
    finally:
        del os.environ[KEY_VARIABLE]


def _make_services(
    folder: Path, resales: dict[Name, Resale], url: str, margin_ppm: int
) -> list[Service]:
    """One service a model, each under the number that it had before."""
    numbers = _read_numbers(folder)
    for name in resales:
        numbers.setdefault(_to_text(name), max(numbers.values(), default=0) + 1)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / SERVICES_FILE).write_bytes(msgspec.json.encode(numbers))
    services = []
    for name, resale in resales.items():
        service_type, model = name
        operations = [one for one in SOLD if one.service_type == service_type]
        if not operations:
            continue
        engine = open_engine(
            "upstream",
            {
                "base_url": url,
                "model": model,
                "key_env": KEY_VARIABLE,
                "context_tokens": resale.context_tokens,
                "output_tokens_max": resale.output_tokens_max or 1,
                "operations": [str(one) for one in operations],
                "margin_ppm": margin_ppm,
            },
        )
        number = numbers[_to_text(name)]
        services.append(Service(number, engine, resale.prices, model=model, follows_leader=True))
    return services


def _read_numbers(folder: Path) -> dict[str, int]:
    path = folder / SERVICES_FILE
    if not path.exists():
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, int])
    except msgspec.DecodeError:
        raise RequestError("configuration_invalid", f"{path} is damaged") from None


def _to_text(name: Name) -> str:
    return "/".join(name)
