"""Runs a broker for `hanse provider start`: keys, registration, engine, and why it is idle."""

import asyncio
import contextlib
import logging
import sys
from pathlib import Path
from typing import Any

import click

from hanse.chain import Rpc
from hanse.chain.registry import Registry
from hanse.cli.cheating.names import check_cheats
from hanse.cli.control import hold_folder, serve_control
from hanse.cli.memory import set_started_aside
from hanse.cli.network import Network, load_network
from hanse.cli.selling.provider_status import describe_offer, explain, fetch_report
from hanse.cli.selling.services import open_services
from hanse.cli.selling.settlement_plans import GasOptions, describe_plan_of
from hanse.cli.selling.settlements import settle_by
from hanse.cli.session import Session
from hanse.cli.tracing.encryption import get_trace_settings, open_encryption_key
from hanse.protocol.errors import HanseError, RequestError
from hanse.protocol.signatures import Address, parse_address
from hanse.protocol.wire import parse_region
from hanse.provider import BrokerKeys, BrokerProcess, BrokerSettings, run_broker
from hanse.provider.attesting import read_attesting_settings
from hanse.settlement.money.provider_money import provider_money_to_json
from hanse.settlement.records.submitter import RecordsSettings

IDLE_LOOK_S = 30.0
"""Between looks at why nobody asks; each is a few reads of the chain's node."""


async def serve(session: Session, options: dict[str, Any]) -> None:
    """Start a broker from the command's options and stay until it is stopped.

    Raises:
        HanseError: a key, the registration, the engine or the chain is not in order.
    """
    network, name = load_network(session.home), str(options["name"])
    check_cheats(network, options)
    folder = session.get_provider_folder(name)
    with hold_folder(folder):
        settings, keys = await prepare(session, network, options, folder)
        services = open_services(session, network, options)
        logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
        async with contextlib.AsyncExitStack() as stack:
            beside = Beside(session, network, folder, keys.receipt.address, stack)
            await run_broker(
                settings,
                keys,
                services,
                on_ready=beside.start,
                progress=_get_progress(session),
            )
    session.output.note("Stopped; every request at work was finished or cut, and is in the books.")


class Beside:
    """What runs beside a broker: the answer to `hanse settle`, and the eye on its idleness."""

    def __init__(
        self,
        session: Session,
        network: Network,
        folder: Path,
        receipt_key: Address,
        stack: contextlib.AsyncExitStack,
    ) -> None:
        self._session, self._network, self._folder = session, network, folder
        self._receipt_key, self._stack = receipt_key, stack

    def start(self, process: BrokerProcess) -> None:
        """Begin, and show that the broker serves."""
        set_started_aside()
        for work in (self._control(process), self._watch(process)):
            task = asyncio.create_task(work)
            self._stack.callback(task.cancel)

    def _show(self, process: BrokerProcess) -> None:
        document = describe_broker(process, self._receipt_key)
        self._session.output.show(
            document,
            lambda: self._session.output.fields(
                (
                    ("provider", document["provider"]),
                    ("serves at", document["url"]),
                    *(
                        ("offers", describe_offer(offer, self._network))
                        for offer in document["offers"]
                    ),
                )
            ),
        )
        self._session.output.note("Ctrl-C finishes the requests at work, then stops.")

    async def _control(self, process: BrokerProcess) -> None:
        async def answer(question: dict[str, Any]) -> dict[str, Any]:
            share = question.get("gas_share_ppm")
            if share is not None and not (type(share) is int and 0 <= share <= 1_000_000):
                raise RequestError("usage", f"gas_share_ppm is {share!r:.40}, not 0 .. 1000000")
            if question.get("do") == "settle":
                return await settle_by(process, share)
            if question.get("do") == "plan":
                return await describe_plan_of(process, share)
            if question.get("do") == "money":
                return provider_money_to_json(await process.read_money())
            if question.get("do") == "status":
                return describe_broker(process, self._receipt_key)
            raise RequestError(
                "usage", "a broker can be asked for its status, money and plan, and to settle"
            )

        async with contextlib.AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(serve_control(self._folder, answer))
            except OSError as error:
                self._session.output.note(f"takes no questions of other commands: {error}")
            self._show(process)  # whoever waited for this may ask at once
            await asyncio.Event().wait()

    async def _watch(self, process: BrokerProcess) -> None:
        said: list[str] = []
        is_first = True
        while True:
            try:
                said_of_itself = describe_broker(process, self._receipt_key)
                report = await fetch_report(
                    self._session,
                    self._network,
                    self._folder.name,
                    said_of_itself,
                    with_market=is_first,
                )
                reasons = explain(report, self._network)
            except HanseError as error:
                reasons = [error.message]
            if reasons != said:
                for reason in reasons:
                    self._session.output.note(f"idle: {reason}")
                if said and not reasons:
                    self._session.output.note("serving requests")
                said = reasons
            is_first = False
            await asyncio.sleep(IDLE_LOOK_S)


def describe_broker(process: BrokerProcess, receipt_key: Address) -> dict[str, Any]:
    """A running broker as a JSON document."""
    settings, parts = process.settings, process.broker.parts
    return {
        "provider": settings.provider,
        "receipt_key": receipt_key,
        "url": process.url,
        "endpoint": settings.endpoints[0] if settings.endpoints else process.url,
        "in_flight": process.broker.in_flight,
        "sub_accounts": len(parts.chain_view.list_funds()),
        **({"cheats": list(settings.cheats)} if settings.cheats else {}),
        "offers": [
            {
                "service_id": found.signed.offer.service_id,
                "service_type": found.signed.offer.service_type,
                "offer_hash": found.offer_hash,
                "model": found.signed.offer.model,
                "engine": found.signed.offer.engine,
                "input_per_mtok": str(found.signed.offer.prices.input_per_mtok),
                "cached_per_mtok": str(found.signed.offer.prices.cached_per_mtok),
                "output_per_mtok": str(found.signed.offer.prices.output_per_mtok),
                "valid_until": found.signed.offer.valid_until,
            }
            for found in parts.offers.list_current()
        ],
    }


async def prepare(
    session: Session, network: Network, options: dict[str, Any], folder: Path
) -> tuple[BrokerSettings, BrokerKeys]:
    """Settings and unlocked keys of a broker; asks before it stakes.

    Raises:
        HanseError: a key, an amount or the registration is not in order.
    """
    name = str(options["name"])
    gas = GasOptions(options["native_price"], options["gas_percent"])
    gas.choose_native_price(network)  # refused before anything is staked
    provider = session.get_key_address(name)
    receipt = session.unlock_key(f"{name}-receipt", use_keyring=options["keyring"])
    encryption_key = open_encryption_key(
        session, name, f"{name}-receipt", use_keyring=options["keyring"]
    )
    stake = await _choose_stake(session, network, provider, options)
    owner = None
    if stake is not None:
        owner = session.unlock_key(name, use_keyring=options["keyring"])
    settings = BrokerSettings(
        provider=provider,
        data_dir=folder,
        database=session.get_store(name),
        rpc_url=network.rpc_url,
        deployment=network.deployment,
        host=options["host"],
        port=options["port"],
        endpoints=tuple(options["endpoint"]),
        region=parse_region(options["region"]) if options["region"] else "",
        stake=stake or 0,
        payee=parse_address(options["payee"], "payee") if options["payee"] else "",
        settle_interval_s=options["settle_every"],
        settle_on_stop=options["settle_on_stop"],
        settle_exposure_max=network.units.parse(options["exposure"]) if options["exposure"] else 0,
        gas_share_ppm=gas.get_rules(network).gas_share_ppm,
        native_price=gas.choose_native_price(network),
        records=RecordsSettings(network.recorders),
        encryption_key=encryption_key,
        traces=get_trace_settings(options, encryption_key),
        cheats=tuple(options.get("cheat", ())),
        attesting=read_attesting_settings(options["attest"]) if options.get("attest") else None,
    )
    return settings, BrokerKeys(receipt=receipt, owner=owner)


async def _choose_stake(
    session: Session, network: Network, provider: Address, options: dict[str, Any]
) -> int | None:
    """What to register with, or None if that is done already."""
    async with Rpc.connect(network.rpc_url) as rpc:
        head = await rpc.fetch_head()
        block = max(0, head.number - network.deployment.confirmations)
        registry = Registry(rpc, network.deployment.registry)
        info = await registry.read_provider(provider, block=block)
        if info.is_registered:
            session.output.note(
                f"{provider} is registered, stake {network.units.format(info.stake)}"
            )
            return None
        minimum = await registry.read_minimum_stake(block=block)
    stake = network.units.parse(options["stake"]) if options["stake"] else minimum
    if stake < minimum:
        raise RequestError(
            "configuration_invalid",
            f"a stake of {network.units.format(stake)} is below the least that counts, "
            f"{network.units.format(minimum)}",
        )
    _confirm(session, options["register"], provider, network.units.format(stake))
    session.output.note(f"registering {provider} with a stake of {network.units.format(stake)} ...")
    return stake


def _confirm(session: Session, register: bool | None, provider: Address, stake: str) -> None:
    agreed = register
    if agreed is None and sys.stdin.isatty() and not session.output.as_json:
        agreed = click.confirm(
            f"{provider} is not registered. Stake {stake} and register it?", err=True
        )
    if not agreed:
        raise RequestError(
            "configuration_invalid",
            f"{provider} is not registered; --register stakes {stake} and registers it",
        )


def _get_progress(session: Session) -> Any:
    said: set[str] = set()

    def progress(what: str, part: float | None) -> None:
        if what not in said:
            said.add(what)
            session.output.note(f"engine: {what} ...")

    return progress
