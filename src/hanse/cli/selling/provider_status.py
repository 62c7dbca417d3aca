"""What is known of one of this home's providers: chain, running broker, books."""

import time
from typing import Any

from hanse.chain import Rpc
from hanse.chain.registry import ProviderInfo, Registry
from hanse.cli.buying.market import look_at_market
from hanse.cli.control import ask_control, is_held
from hanse.cli.moments import format_time
from hanse.cli.network import Network, load_network
from hanse.cli.selling.idleness import NOT_RUNNING, ProviderFacts, explain_idle
from hanse.cli.session import Session
from hanse.http import fetch_status
from hanse.protocol.errors import HanseError
from hanse.protocol.signatures import ZERO_ADDRESS, Address
from hanse.settlement.books.receipt_totals import ReceiptTotals, read_totals

HEALTH_S = 5.0
"""A broker answers /health from memory; one that takes longer is as good as gone."""

INPUT_UNITS = {"speech": "characters", "transcription": "seconds of audio"}
"""What is counted where it is no tokens; there is one price then, for what comes in."""

NOTHING = ReceiptTotals(0, 0, 0, 0, 0, 0, 0)


class ProviderReport:
    """One look at a provider.

    Attributes:
        address: the provider's.
        info: what the Registry shows.
        broker: what the running broker says of itself; None if it does not run.
        totals: its books in numbers.
        facts: for `explain_idle`.
    """

    def __init__(
        self,
        address: str,
        info: ProviderInfo,
        broker: dict[str, Any] | None,
        totals: ReceiptTotals,
        facts: ProviderFacts,
    ) -> None:
        self.address, self.info, self.broker = address, info, broker
        self.totals, self.facts = totals, facts


async def fetch_report(
    session: Session,
    network: Network,
    name: str,
    broker: dict[str, Any] | None = None,
    *,
    with_market: bool = False,
) -> ProviderReport:
    """Ask chain, broker and books.

    Args:
        session: the home folder.
        network: the market.
        name: of the provider.
        broker: what the broker says of itself, if the caller is the broker.
        with_market: whether to compare prices; that asks every broker of the market.

    Raises:
        HanseError: no such key, or the chain's node does not answer.
    """
    address = session.get_key_address(name)
    folder = session.get_provider_folder(name)
    broker = broker or await _find_broker(folder)
    offers = broker["offers"] if broker else []
    async with Rpc.connect(network.rpc_url) as rpc:
        head = await rpc.fetch_head()
        block = max(0, head.number - network.deployment.confirmations)
        registry = Registry(rpc, network.deployment.registry)
        info = await registry.read_provider(address, block=block)
        minimum = await registry.read_minimum_stake(block=block)
        published = 0
        for offer in offers:
            listed = await registry.read_service(address, offer["service_id"], block=block)
            published += listed.active and listed.offer_hash == offer["offer_hash"]
    totals = await _read_totals(session, name)
    facts = ProviderFacts(
        is_registered=info.is_registered,
        stake=info.stake,
        minimum_stake=minimum,
        unbonding_until_s=info.unbonding_until_s,
        receipt_key_matches=broker is None or info.receipt_key == broker["receipt_key"],
        published_offers=published,
        health=await _fetch_health(broker["endpoint"]) if broker else NOT_RUNNING,
        valid_until_s=min((offer["valid_until"] for offer in offers), default=0),
        cheaper_offers=await _count_cheaper(session, network, address, offers)
        if with_market
        else 0,
        sub_accounts=broker["sub_accounts"] if broker else totals.sub_accounts,
        requests=totals.requests,
        last_request_s=totals.last_request_s,
        is_condemned=info.is_condemned,
        name=name,
    )
    return ProviderReport(address, info, broker, totals, facts)


def explain(report: ProviderReport, network: Network) -> list[str]:
    """Why no request comes, in whole units of the asset."""
    return explain_idle(report.facts, int(time.time()), network.units.format)


async def show_status(session: Session, name: str) -> None:
    """`hanse provider status`."""
    network = load_network(session.home)
    with session.output.wait("asking chain and brokers ..."):
        report = await fetch_report(session, network, name, with_market=True)
    reasons = explain(report, network)
    info, totals, units, broker = report.info, report.totals, network.units, report.broker
    last = format_time(totals.last_request_s) if totals.last_request_s else "never"
    pairs = [
        ("provider", report.address),
        ("registered", "yes" if info.is_registered else "no"),
        ("stake", units.format(info.stake)),
        ("receipt key", info.receipt_key if info.receipt_key != ZERO_ADDRESS else "none"),
        ("paid to", info.payee if info.payee != ZERO_ADDRESS else "nobody yet"),
        ("broker", f"{report.facts.health}, {broker['endpoint']}" if broker else "not running"),
        *(("CHEATS its users", cheat) for cheat in (broker or {}).get("cheats", ())),
        *(
            ("offer", describe_offer(offer, network))
            for offer in (broker or {"offers": []})["offers"]
        ),
        ("requests", f"{totals.requests}, {totals.in_flight} at work; last {last}"),
        ("earned", units.format(totals.fees)),
        ("of it settled", units.format(totals.settled)),
        ("still to claim", units.format(totals.due)),
        *(("idle because", reason) for reason in reasons),
    ]
    session.output.show(
        {
            "provider": report.address,
            "registered": info.is_registered,
            "stake": str(info.stake),
            "unbonding_until": info.unbonding_until_s,
            "receipt_key": info.receipt_key,
            "payee": info.payee,
            "health": report.facts.health,
            "broker": broker,
            "requests": totals.requests,
            "in_flight": totals.in_flight,
            "last_request": totals.last_request_s,
            "earned": str(totals.fees),
            "settled": str(totals.settled),
            "due": str(totals.due),
            "idle_because": reasons,
        },
        lambda: session.output.fields(pairs),
    )


def describe_offer(offer: dict[str, Any], network: Network) -> str:
    """An offer in one line."""
    units = network.units
    taken, made = int(offer["input_per_mtok"]), int(offer["output_per_mtok"])
    unit = INPUT_UNITS.get(offer["service_type"])
    price = (
        f"{units.format(taken)} a million {unit}"
        if unit is not None
        else f"{units.format_number(taken)} in, {units.format(made)} out a million tokens"
    )
    return (
        f"{offer['service_type']} by {offer['model']} ({offer['engine']}) at {price}, "
        f"until {format_time(offer['valid_until'])}"
    )


async def _count_cheaper(
    session: Session, network: Network, address: Address, offers: list[dict[str, Any]]
) -> int:
    """Healthy offers of others for the same models at a lower output price."""
    if not offers:
        return 0
    prices = {
        offer["model"]: int(offer["output_per_mtok"])
        for offer in offers
        if offer["service_type"] == "chat"
    }
    report = await look_at_market(session, network)
    return sum(
        seen.health == "ok"
        and seen.listed.provider != address
        and seen.listed.offer.service_type == "chat"
        and seen.listed.offer.prices.output_per_mtok < prices.get(seen.listed.offer.model, 0)
        for seen in report.offers
    )


async def _find_broker(folder: Any) -> dict[str, Any] | None:
    if not is_held(folder):
        return None
    try:
        return await ask_control(folder, {"do": "status"})
    except HanseError:
        return None  # it is starting or stopping, or another command holds the folder


async def _read_totals(session: Session, name: str) -> ReceiptTotals:
    from hanse.cli.selling.settlements import get_books
    from hanse.store import open_database

    try:
        path = get_books(session, name)
    except HanseError:
        return NOTHING
    database = await open_database(path)
    try:
        return await read_totals(database)
    finally:
        await database.close()


async def _fetch_health(endpoint: str) -> str:
    try:
        status = await fetch_status(endpoint.rstrip("/") + "/health", within_s=HEALTH_S)
    except (OSError, ValueError):
        return "unreachable"
    return "ok" if status == 200 else "not admitting requests"
