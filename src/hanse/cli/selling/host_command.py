"""`hanse gateway host`: a gateway that is a provider, too."""

from typing import Any

import click

from hanse.cli.framework import command, pass_session
from hanse.cli.selling.selling_options import selling_options
from hanse.cli.session import Session


@command(
    "host",
    short_help="Sell a gateway's answers: buy on the market, sell with a margin.",
    has_settings=True,
    examples=(
        (
            "Every model of the market, at 10 % above what it costs",
            "hanse gateway host --margin-percent 10 --fund-to 5 --fund-per-day 50 --register",
        ),
        (
            "Two models, at a public address, on PostgreSQL",
            "hanse gateway host --margin-percent 15 --fund-to 5 --fund-per-day 50 "
            "--model small --model large --endpoint https://ai.example --database postgresql:///h",
        ),
    ),
)
@click.option(
    "--margin-percent",
    type=click.FloatRange(0, 1_000),
    required=True,
    help="Added to the dearest price that is paid, for each kind of token.",
)
@click.option(
    "--name", default="host", help="Whose keys and books it sells by: NAME, NAME-receipt."
)
@click.option("--key", default="gateway", help="Whose money it buys with: a key of this home.")
@click.option("--signer", help="Key that signs what it buys. [default: the same]")
@click.option("--model", multiple=True, help="Model to sell; may be repeated. [default: all]")
@click.option("--keyring", is_flag=True, help="Take passwords from the desktop's keyring.")
@click.option("--fund-to", required=True, help="Keep the sub-account with each provider at this.")
@click.option("--fund-per-day", required=True, help="Most that goes to providers in 24 hours.")
@click.option("--fund-below", help="Fill up once less is free. [default: half of --fund-to]")
@click.option(
    "--fund-providers",
    type=click.IntRange(1, 20),
    default=2,
    help="Providers bought of for each model, the cheapest.",
)
@click.option(
    "--idle-hours",
    type=click.FloatRange(0),
    default=0.0,
    help="Ask money back from providers after so long without use; 0 for never.",
)
@click.option("--return-to", help="Key or address that idle money goes back to.")
@click.option(
    "--reprice-s",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    help="Seconds between looks at the market's prices.",
)
@selling_options
@pass_session
async def host_gateway(session: Session, /, **options: Any) -> None:
    """Buy answers on the market and sell them, paid by voucher on both sides.

    It registers as a provider, offers each model at the market's price and the margin, serves by a
    gateway of its own, and follows the market's prices. Its users check its receipts as they do any
    provider's. Several of these may share one PostgreSQL database.
    """
    from hanse.cli.selling.hosting import host

    await host(session, options)
