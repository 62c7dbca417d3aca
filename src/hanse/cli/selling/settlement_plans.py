"""`hanse settle --plan`: what the settlement scheduler would do now, and what on demand.

A running broker is asked, since the rules are its own; else the plan is made here from its books
and the chain, with the rules of the command's options. Neither needs a password or changes
anything.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hanse.chain import Rpc
from hanse.chain.escrow import Escrow
from hanse.cli.control import ask_control, is_held
from hanse.cli.moments import format_time
from hanse.cli.network import Network
from hanse.cli.selling.settlements import SUB_ACCOUNTS_READ_MAX, get_books, read_due
from hanse.cli.session import Session
from hanse.protocol.errors import RequestError
from hanse.sdk.settings import DEVELOPMENT_CHAIN_ID
from hanse.settlement import SubAccountFunds
from hanse.settlement.netting.gas import GasMarket, SettlementRules
from hanse.settlement.netting.payable import PayableClaim, order_by_unlock, to_payable
from hanse.settlement.netting.plan import (
    SettlementPlan,
    plan_settlement,
)
from hanse.settlement.netting.round_storage import open_round_storage
from hanse.settlement.netting.scheduler import fetch_gas_market
from hanse.store import open_database

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hanse.provider import BrokerProcess

CLAIMS_SHOWN_MAX = 1_000
"""Sub-accounts in one plan's document, those with refunds first; about 250 bytes each."""


@dataclass(frozen=True)
class GasOptions:
    """The options on gas that `settle` and `provider start` share.

    Attributes:
        native_price: what one native coin is worth, as people write an amount; None if not said.
        gas_percent: most of a settlement's value that gas may take; None for the default.
    """

    native_price: str | None
    gas_percent: float | None

    @property
    def gas_share_ppm(self) -> int | None:
        """Parts per million."""
        return None if self.gas_percent is None else round(self.gas_percent * 10_000)

    def choose_native_price(self, network: Network) -> int:
        """Base units for 10**18 wei; 0 on a development chain, where native coin is free.

        Raises:
            RequestError: `configuration_invalid` if it was not said and nobody can know it.
        """
        if self.native_price is not None:
            return network.units.parse(self.native_price)
        if network.deployment.chain_id == DEVELOPMENT_CHAIN_ID:
            return 0
        raise RequestError(
            "configuration_invalid",
            f"what is the native coin of chain {network.deployment.chain_id} worth in "
            f"{network.units.symbol}? Settlements are held against their gas: --native-price 2500, "
            "or --native-price 0 where gas costs nothing",
        )

    def get_rules(self, network: Network) -> SettlementRules:
        """The default rules with these options."""
        share, default = self.gas_share_ppm, SettlementRules()
        return SettlementRules(
            native_price=self.choose_native_price(network),
            gas_share_ppm=default.gas_share_ppm if share is None else share,
        )


async def fetch_plan(
    session: Session, network: Network, name: str, options: GasOptions
) -> dict[str, Any]:
    """The plan as a document.

    Raises:
        RequestError: no such books, or options that the running broker has of its own.
        HanseError: chain or broker do not answer.
    """
    books, folder = get_books(session, name), session.get_provider_folder(name)
    if is_held(folder):
        if options.native_price is not None:
            raise RequestError(
                "usage", "a running broker has a --native-price of its own; leave this one out"
            )
        return await ask_control(folder, {"do": "plan", "gas_share_ppm": options.gas_share_ppm})
    rules = options.get_rules(network)
    claims, market = await _read_claims(session, network, name)
    database = await open_database(books)
    try:
        storage = await open_round_storage(database, session.get_key_address(name))
        since_s = (await storage.read()).waiting_since_s
    finally:
        await database.close()
    return describe_plan(
        plan_settlement(claims, market, rules, since_s=since_s),
        plan_settlement(claims, market, rules, since_s=since_s, asked=True),
        rules,
    )


async def describe_plan_of(process: "BrokerProcess", gas_share_ppm: int | None) -> dict[str, Any]:
    """The same of a broker that runs in this process."""
    scheduler = process.scheduler
    return describe_plan(
        await scheduler.make_plan(gas_share_ppm=gas_share_ppm),
        await scheduler.make_plan(asked=True, gas_share_ppm=gas_share_ppm),
        scheduler.rules,
    )


def describe_plan(
    plan: SettlementPlan, asked: SettlementPlan, rules: SettlementRules
) -> dict[str, Any]:
    """Both plans as one document."""
    sent = {(c.claim.user, c.claim.signer) for batch in plan.batches for c in batch.claims}
    return {
        **_describe(plan),
        "waiting": str(plan.value),
        "gas_price_wei": str(plan.market.gas_price_wei),
        "native_price": str(rules.native_price),
        "gas_share_ppm": rules.gas_share_ppm,
        "since": plan.since_s,
        "next_due": plan.next_due_s,
        "overdue_s": plan.overdue_s,
        "on_demand": _describe(asked),
        "claims": [
            {
                "user": found.claim.user,
                "signer": found.claim.signer,
                "sequence": str(found.claim.sequence),
                "payable": str(found.payable),
                "refund_unlocks": found.unlock_s,
                "planned": (found.claim.user, found.claim.signer) in sent,
            }
            for found in order_by_unlock(plan.waiting)[:CLAIMS_SHOWN_MAX]
        ],
        "claims_not_shown": max(0, len(plan.waiting) - CLAIMS_SHOWN_MAX),
    }


def show_plan(session: Session, network: Network, document: dict[str, Any]) -> None:
    """Print it."""
    session.output.show(document, lambda: _render(session, network, document))


def _describe(plan: SettlementPlan) -> dict[str, Any]:
    return {
        "decision": plan.decision.value,
        "reason": plan.reason.value,
        "words": plan.words,
        "value": str(plan.planned_value),
        "cost": str(sum(batch.cost for batch in plan.batches)),
        "batches": [
            {
                "claims": len(batch.claims),
                "value": str(batch.value),
                "gas": batch.gas,
                "cost": str(batch.cost),
                "fee_cap_wei": str(batch.fee_cap_wei),
            }
            for batch in plan.batches
        ],
    }


def _say_time(time_s: int, otherwise: str) -> str:
    """By the chain's clock: a local one's is moved by hand, and rests with the chain."""
    return f"{format_time(time_s)} by the chain's clock" if time_s else otherwise


def _render(session: Session, network: Network, document: dict[str, Any]) -> "RenderableType":
    from rich.console import Group

    output, units = session.output, network.units
    price = int(document["native_price"])
    pairs = [
        ("by itself", _say(document, network)),
        ("on demand", _say(document["on_demand"], network)),
        ("waiting", units.format(int(document["waiting"]))),
        ("since", _say_time(document["since"], "nothing waits")),
        ("due", _say_time(document["next_due"], "at no time")),
        *([("OVERDUE", f"by {document['overdue_s']} s")] if document["overdue_s"] else []),
        ("gas price", f"{int(document['gas_price_wei']) / 10**9:g} gwei"),
        ("native coin", units.format(price) if price else "free here: the gas rule is off"),
        ("gas may take", f"{document['gas_share_ppm'] / 10_000:g} %"),
    ]
    rows = [
        (
            claim["user"],
            claim["signer"],
            claim["sequence"],
            units.format_number(int(claim["payable"])),
            format_time(claim["refund_unlocks"]) if claim["refund_unlocks"] else "",
            "now" if claim["planned"] else "",
        )
        for claim in document["claims"]
    ]
    columns = ("user", "signer", "requests>", f"payable, {units.symbol}>", "refund unlocks", "sent")
    table = [output.table(columns, rows)] if rows else []
    more = document["claims_not_shown"]
    return Group(output.fields(pairs), *table, *([f"and {more} more"] if more else []))


def _say(plan: dict[str, Any], network: Network) -> str:
    if plan["decision"] == "wait":
        return f"waits: {plan['words']}"
    units, batches = network.units, plan["batches"]
    claims = sum(batch["claims"] for batch in batches)
    gas = sum(batch["gas"] for batch in batches)
    return (
        f"settles {units.format(int(plan['value']))} of {claims} sub-accounts in {len(batches)} "
        f"transactions, about {gas:,} gas or {units.format(int(plan['cost']))}: {plan['words']}"
    )


async def _read_claims(
    session: Session, network: Network, name: str
) -> tuple[list[PayableClaim], GasMarket]:
    provider = session.get_key_address(name)
    due = await read_due(session, network, name, provider)
    async with Rpc.connect(network.rpc_url) as rpc:
        head = await rpc.fetch_head()
        block = max(0, head.number - network.deployment.confirmations)
        escrow = Escrow(rpc, network.deployment.escrow)
        found = []
        for claim in due[:SUB_ACCOUNTS_READ_MAX]:
            held = await escrow.read_sub_account(claim.user, provider, claim.signer, block=block)
            funds = SubAccountFunds(
                held.balance, held.claimed, held.sequence, held.refund, held.unlock_time_s
            )
            if payable := to_payable(claim, funds):
                found.append(payable)
        return found, await fetch_gas_market(rpc)
