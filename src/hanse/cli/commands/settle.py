"""`hanse settle`: claim what users signed for."""

from typing import TYPE_CHECKING, Any

import click

from hanse.cli.framework import command, pass_session
from hanse.cli.session import Session

if TYPE_CHECKING:
    from hanse.cli.network import Network
    from hanse.cli.selling.settlements import PayableClaim


@command(
    "settle",
    short_help="Claim what users signed for (provider).",
    examples=(
        ("What would be claimed", "hanse settle --dry-run"),
        ("When the broker will, at what gas, and why not now", "hanse settle --plan"),
        ("Claim it now", "hanse settle"),
        ("Claim it now though gas takes up to a tenth", "hanse settle --gas-percent 10"),
        ("For the second provider of this home", "hanse settle --name second"),
    ),
)
@click.option("--name", default="provider", help="Whose books: NAME, signed by NAME-receipt.")
@click.option("--dry-run", is_flag=True, help="Show what would be claimed; needs no password.")
@click.option("--plan", "with_plan", is_flag=True, help="Show the decision and why; no password.")
@click.option(
    "--gas-percent",
    type=click.FloatRange(0, 100),
    help="Most of the value that gas may take, this once. [default: the broker's, or 1]",
)
@click.option(
    "--native-price",
    metavar="AMOUNT",
    help="What one native coin is worth, if no broker runs. [default: 0 on a development chain]",
)
@click.option("--keyring", is_flag=True, help="Take the password from the desktop's keyring.")
@pass_session
async def settle(
    session: Session,
    /,
    name: str,
    dry_run: bool,
    with_plan: bool,
    gas_percent: float | None,
    native_price: str | None,
    keyring: bool,
) -> None:
    """Claim on the chain, from the last voucher of each sub-account, what is owed.

    If this provider's broker is running it is asked to settle; else this command does it. What
    would cost more gas than the rule allows is left, and said; the broker tries again by itself.
    """
    from hanse.cli.network import load_network
    from hanse.cli.selling import settlement_plans, settlements

    network = load_network(session.home)
    gas = settlement_plans.GasOptions(native_price, gas_percent)
    if with_plan:
        found = await settlement_plans.fetch_plan(session, network, name, gas)
        settlement_plans.show_plan(session, network, found)
        return
    if dry_run:
        _show_payable(session, network, await settlements.read_payable(session, network, name))
        return
    with session.output.wait("settling, until the transaction is confirmed ..."):
        document = await settlements.settle(session, network, name, gas, use_keyring=keyring)
    _show_settled(session, network, document)
    if "left" in document:
        left = network.units.format(int(document["left"]["value"]))
        session.output.note(f"{left} left: {document['left']['words']}")


def _show_payable(session: Session, network: "Network", claims: "list[PayableClaim]") -> None:
    output, units = session.output, network.units
    total = sum(found.payable for found in claims)
    rows = [
        (
            found.claim.user,
            found.claim.signer,
            found.claim.sequence,
            units.format_number(found.claim.due),
            units.format_number(found.payable),
        )
        for found in claims
    ]
    columns = ("user", "signer", "requests>", "due>", f"would be paid, {units.symbol}>")
    footer = ("sum", "", "", "", units.format_number(total))
    output.show(
        {
            "claims": [
                {
                    "user": found.claim.user,
                    "signer": found.claim.signer,
                    "due": str(found.claim.due),
                    "balance": str(found.balance),
                    "payable": str(found.payable),
                    "sequence": str(found.claim.sequence),
                }
                for found in claims
            ],
            "payable": str(total),
        },
        lambda: output.table(columns, rows, footer=footer) if rows else "Nothing is due.",
    )


def _show_settled(session: Session, network: "Network", document: dict[str, Any]) -> None:
    output, units = session.output, network.units
    rows = [
        (
            claim["user"],
            claim["signer"],
            claim["status"],
            units.format_number(int(claim["paid"])),
            batch["transaction_hash"],
        )
        for batch in document["batches"]
        for claim in batch["claims"]
    ]
    columns = ("user", "signer", "result", f"paid, {units.symbol}>", "transaction")
    footer = ("sum", "", "", units.format_number(int(document["paid"])), "")
    output.show(
        document,
        lambda: output.table(columns, rows, footer=footer) if rows else "Nothing was due.",
    )
