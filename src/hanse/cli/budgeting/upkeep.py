"""A gateway whose sub-accounts are kept by themselves: its options, and what it is sent once."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from hanse.cli.control import hold_folder
from hanse.cli.framework import command, option_block, pass_session
from hanse.cli.session import Session

if TYPE_CHECKING:
    from hanse.cli.network import Network
    from hanse.sdk import Hanse, Settings

GAS_DEFAULT = "0.05"
"""Native coin, whole units: a few thousand transactions where gas is cheap."""

_NATIVE_DECIMALS = 18


upkeep_options = option_block(
    click.option(
        "--fund-to",
        help="Open sub-accounts by itself and keep each at this amount. [default: off]",
    ),
    click.option("--fund-below", help="Fill up once less is free. [default: half of --fund-to]"),
    click.option("--fund-per-day", help="Most that goes to providers in 24 hours."),
    click.option(
        "--fund-never",
        multiple=True,
        metavar="PROVIDER",
        help="Never fund this one, such as oneself; may be repeated.",
    ),
    click.option(
        "--fund-model",
        multiple=True,
        help="Model whose providers are always kept. [default: those asked for]",
    ),
    click.option(
        "--fund-providers",
        type=click.IntRange(1, 20),
        default=2,
        help="Providers kept for each model, the cheapest.",
    ),
    click.option(
        "--idle-hours",
        type=click.FloatRange(0),
        default=0.0,
        help="Ask money back from providers after so long without use; 0 for never.",
    ),
    click.option(
        "--return-to",
        help="Key or address that idle money goes back to. [default: the account]",
    ),
)
"""How far the paying key's money may be moved without asking."""


def with_upkeep(
    session: Session, network: "Network", options: dict[str, Any], buyer: "Settings"
) -> "Settings":
    """The settings with upkeep, if the options ask for it; unlocks the paying key.

    Raises:
        HanseError: an amount is none, the key is not here, or the amounts contradict each other.
    """
    if options["fund_to"] is None:
        return buyer
    from hanse.cli.buying.moves import get_provider
    from hanse.sdk.upkeep import UpkeepSettings

    units = network.units
    target = units.parse(options["fund_to"])
    below, cap = options["fund_below"], options["fund_per_day"]
    if cap is None:
        raise click.UsageError("--fund-to needs a cap: --fund-per-day AMOUNT")
    return_to = options["return_to"]
    upkeep = UpkeepSettings(
        target=target,
        refill_below=max(1, target // 2) if below is None else units.parse(below),
        daily_cap=units.parse(cap),
        idle_s=options["idle_hours"] * 3_600,
        providers_max=options["fund_providers"],
        models=options["fund_model"],
        excluded=frozenset(get_provider(session, one) for one in options["fund_never"]),
        return_to=get_provider(session, return_to) if return_to else "",
    )
    wallet = session.unlock_key(options["key"], use_keyring=options["keyring"])
    return replace(buyer, wallet=wallet, upkeep=upkeep)


@asynccontextmanager
async def open_kept(session: Session, key: str, buyer: "Settings") -> AsyncIterator["Hanse"]:
    """An open client; with upkeep it is the only one that sends transactions of this key."""
    from hanse.sdk import Hanse

    with contextlib.ExitStack() as stack:
        if buyer.upkeep is not None:
            stack.enter_context(hold_folder(session.home / "sending" / key))
        async with Hanse.open(buyer) as hanse:
            yield hanse


@command(
    "fund",
    short_help="Send a gateway's key its money, from the wallet.",
    examples=(
        ("20 for the key that `hanse gateway start --key gateway` uses", "hanse gateway fund 20"),
        ("From another wallet, with more for gas", "hanse gateway fund 20 --key owner --gas 0.5"),
    ),
)
@click.argument("amount")
@click.option("--key", default="user", help="Wallet that pays: a key of this home.")
@click.option("--to", "receiver", default="gateway", help="The gateway's key, or an address.")
@click.option("--gas", default=GAS_DEFAULT, help="Native coin sent along, whole units; 0 for none.")
@click.option("--keyring", is_flag=True, help="Take the password from the desktop's keyring.")
@pass_session
async def fund_gateway(session: Session, /, amount: str, **options: Any) -> None:
    """Send AMOUNT from the wallet to the gateway's own key, and native coin for its gas.

    This is the one time that the wallet is needed. `hanse gateway start --key gateway --fund-to 5`
    then opens sub-accounts from it and fills them up; `--return-to` brings back what is idle. What
    the key holds is what can be lost with it.
    """
    from hanse.chain import Call
    from hanse.cli.buying.moves import get_provider
    from hanse.cli.buying.wallet import open_wallet
    from hanse.cli.network import load_network
    from hanse.protocol.units import parse_amount

    network = load_network(session.home)
    units = network.units.parse(amount)
    gas_wei = parse_amount(options["gas"], _NATIVE_DECIMALS)
    receiver = get_provider(session, options["receiver"])
    output, key = session.output, options["key"]
    async with open_wallet(
        session, network, key, can_send=True, use_keyring=options["keyring"]
    ) as wallet:
        outbox = wallet.account.outbox
        assert outbox is not None  # opened to send
        with output.wait(f"sending {network.units.format(units)} to {receiver} ..."):
            sent = await wallet.account.send(receiver, units)
            if gas_wei:
                native = Call(to=receiver, data=b"", value=gas_wei, label="gas of a gateway's key")
                await outbox.submit(f"gas-{sent.transaction_hash}", native)
    output.show(
        {
            "receiver": receiver,
            "amount": str(units),
            "native_wei": str(gas_wei),
            "transaction_hash": sent.transaction_hash,
        },
        lambda: output.fields(
            (
                ("sent", network.units.format(units)),
                ("to", receiver),
                ("transaction", sent.transaction_hash),
            )
        ),
    )
