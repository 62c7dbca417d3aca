"""`hanse money`: every unit of a wallet, by place."""

from typing import TYPE_CHECKING, Any

import click

from hanse.cli.framework import command, pass_session
from hanse.cli.moments import format_time, format_until
from hanse.cli.session import Session
from hanse.protocol.errors import InvariantError

if TYPE_CHECKING:
    from hanse.cli.network import Network
    from hanse.sdk.money import Money


@command(
    "money",
    short_help="Show every unit of a wallet, by place.",
    examples=(
        ("Where every unit is, and which transaction put it there", "hanse money"),
        ("What can be withdrawn at once", "hanse money --json | jq -r .by_place.account"),
        ("Every movement, oldest first", "hanse money --history"),
    ),
)
@click.option("--key", default="user", help="Whose money: a key of this home.")
@click.option("--history", is_flag=True, help="Show every event that moved it, too.")
@pass_session
async def money(session: Session, /, key: str, history: bool) -> None:
    """Show every unit of a wallet by place, with a sum that adds up.

    \b
    wallet    held by the address itself
    account   free in Escrow: withdraw pays it out
    free      of a sub-account: may go into new requests
    reserved  of a sub-account: for requests in flight
    accrued   of a sub-account: receipted, not yet claimed by the provider
    refund    of a sub-account: asked back, waits for the lock time
    stake     in the Registry, if the wallet is a provider too

    Chain and books are compared; a difference is named and ends with exit code 70. Needs no
    password.
    """  # noqa: D301 - click's mark for lines that must not be joined
    from hanse.cli.buying.wallet import open_wallet
    from hanse.cli.network import load_network

    network = load_network(session.home)
    with session.output.wait("reading chain and books ..."):
        async with open_wallet(session, network, key) as wallet:
            found = await wallet.read_money()
            now_s = (await wallet.rpc.fetch_head()).timestamp_s  # its clock decides
    _show(session, network, found, now_s, history=history)
    if found.differences:
        raise InvariantError("invariant_broken", "; ".join(found.differences))


def _show(
    session: Session, network: "Network", found: "Money", now_s: int, *, history: bool
) -> None:
    output, units = session.output, network.units
    places = [place for place in found.places if place.amount or not place.provider]
    rows = [
        (
            place.place,
            _describe(place.provider, place.signer, found.user),
            units.format_number(place.amount),
            f"{format_time(place.unlock_time_s)}, {format_until(place.unlock_time_s, now_s)}"
            if place.unlock_time_s
            else "",
            place.transaction_hash,
        )
        for place in places
    ]
    columns = ("place", "provider", f"{units.symbol}>", "free at", "transaction")
    footer = ("sum", "", units.format_number(found.total), "", "")
    output.show(
        _to_document(found),
        lambda: output.table(
            columns, rows, footer=footer, title=f"{found.user} at block {found.block}"
        ),
    )
    output.note(f"providers have been paid {units.format(found.paid)} so far")
    if history and not output.as_json:
        events = [
            (
                format_time(entry.timestamp_s),
                entry.name,
                entry.provider,
                units.format_number(int(entry.amount)),
                entry.transaction_hash,
            )
            for entry in found.journal
        ]
        heads = ("when", "event", "provider", f"{units.symbol}>", "transaction")
        output.console().print(output.table(heads, events))


def _describe(provider: str, signer: str, user: str) -> str:
    return provider if signer in ("", user) else f"{provider} by signer {signer}"


def _to_document(found: "Money") -> dict[str, Any]:
    by_place: dict[str, int] = {}
    for place in found.places:
        by_place[place.place] = by_place.get(place.place, 0) + place.amount
    return {
        "user": found.user,
        "block": found.block,
        "total": str(found.total),
        "paid": str(found.paid),
        "by_place": {name: str(amount) for name, amount in by_place.items()},
        "places": [
            {
                "place": place.place,
                "amount": str(place.amount),
                "provider": place.provider,
                "signer": place.signer,
                "transaction_hash": place.transaction_hash,
                "unlock_time_s": place.unlock_time_s,
            }
            for place in found.places
        ],
        "differences": list(found.differences),
        "journal": [
            {
                "name": entry.name,
                "amount": entry.amount,
                "provider": entry.provider,
                "signer": entry.signer,
                "transaction_hash": entry.transaction_hash,
                "block_number": entry.block_number,
                "timestamp_s": entry.timestamp_s,
            }
            for entry in found.journal
        ],
    }
