"""`hanse money`: every unit of a wallet, by place."""

from typing import TYPE_CHECKING, Any

import click

from hanse.cli.framework import command, pass_session
from hanse.cli.moments import format_time
from hanse.cli.session import Session
from hanse.protocol.errors import InvariantError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hanse.cli.network import Network
    from hanse.sdk.money import Money
    from hanse.settlement.money.journal import JournalEntry


@command(
    "money",
    short_help="Show every unit of a wallet, by place.",
    examples=(
        ("Where every unit is, and which transaction put it there", "hanse money"),
        ("What can be withdrawn at once", "hanse money --json | jq -r .by_place.account"),
        ("Every movement, oldest first", "hanse money --history"),
        ("For a monitor: is anything overdue", "hanse money --json | jq .alarms"),
    ),
)
@click.option("--key", default="user", help="Whose money: a key of this home.")
@click.option("--history", is_flag=True, help="Show every event that moved it, too.")
@pass_session
async def money(session: Session, /, key: str, history: bool) -> None:
    """Show every unit of a wallet by place: why it is there, until when, and what would free it.

    \b
    wallet    held by the address itself
    account   free in Escrow: withdraw pays it out
    free      of a sub-account: may go into new requests
    reserved  of a sub-account: for requests in flight
    accrued   of a sub-account: receipted, not yet claimed by the provider
    refund    of a sub-account: asked back, waits for the lock time
    stake     in the Registry, if the wallet is a provider too

    Each place names the newest transaction that put units there; --json has all of them. A refund
    that nobody completed is an alarm. Chain and books are compared; a difference is named and ends
    with exit code 70. Needs no password.
    """  # noqa: D301 - click's mark for lines that must not be joined
    from hanse.cli.buying.wallet import open_wallet
    from hanse.cli.network import load_network

    network = load_network(session.home)
    with session.output.wait("reading chain and books ..."):
        async with open_wallet(session, network, key) as wallet:
            found = await wallet.read_money()
            now_s = (await wallet.rpc.fetch_head()).timestamp_s  # its clock decides
    _show(session, network, found, now_s, key, history=history)
    if found.differences:
        raise InvariantError("invariant_broken", "; ".join(found.differences))


def _show(
    session: Session, network: "Network", found: "Money", now_s: int, key: str, *, history: bool
) -> None:
    from hanse.cli.buying.places import show_places

    output, units = session.output, network.units
    show_places(
        output,
        units,
        [place for place in found.places if place.amount or not place.provider],
        document=lambda: _to_document(found, key),
        title=f"{found.user} at block {found.block}",
        names={found.user: ""},
        now_s=now_s,
        complete=lambda command: complete_command(command, key),
    )
    output.note(f"providers have been paid {units.format(found.paid)} so far")
    for alarm in found.alarms:
        todo = f": {complete_command(alarm.command, key)}" if alarm.command else ""
        output.note(f"ALARM {alarm.code}: {alarm.message}{todo}")
    if history and not output.as_json:
        entries = sorted((*found.journal, *found.transfers), key=lambda e: e.block_number)
        events = [
            (
                format_time(entry.timestamp_s),
                entry.name,
                entry.provider or entry.party,
                units.format_number(int(entry.amount)),
                entry.transaction_hash,
            )
            for entry in entries
        ]
        heads = ("when", "event", "with", f"{units.symbol}>", "transaction")
        output.console().print(output.table(heads, events))


def complete_command(command: str, key: str) -> str:
    """The command with what names this wallet: the stake's are a provider's, whose name is NAME."""
    if not command:
        return ""
    if command.startswith("hanse provider "):
        return f"{command} --name {key}"
    return command if key == "user" else f"{command} --key {key}"


def _to_document(found: "Money", key: str) -> dict[str, Any]:
    from hanse.sdk.money import money_to_json
    from hanse.settlement.money.places import sum_by_place

    document = money_to_json(found)
    for entry in (*document["places"], *document["alarms"]):
        entry["command"] = complete_command(entry["command"], key)
    return {
        **document,
        "by_place": {name: str(amount) for name, amount in sum_by_place(found.places).items()},
        "journal": _to_entries(found.journal),
        "transfers": _to_entries(found.transfers),
    }


def _to_entries(entries: "Iterable[JournalEntry]") -> list[dict[str, Any]]:
    return [
        {
            "name": entry.name,
            "amount": entry.amount,
            "provider": entry.provider,
            "signer": entry.signer,
            "party": entry.party,
            "transaction_hash": entry.transaction_hash,
            "block_number": entry.block_number,
            "timestamp_s": entry.timestamp_s,
        }
        for entry in entries
    ]
