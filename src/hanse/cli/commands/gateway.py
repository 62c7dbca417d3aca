"""`hanse gateway`: OpenAI's API for applications, and the keys that they use."""

from typing import Any

import click

from hanse.cli.auditing.places import audit_option
from hanse.cli.budgeting.keys import gateway_keys
from hanse.cli.budgeting.limits import gateway_ladders, gateway_limits
from hanse.cli.budgeting.upkeep import fund_gateway, upkeep_options
from hanse.cli.buying.choosing_options import choosing_options
from hanse.cli.buying.gateway_options import staying_options
from hanse.cli.framework import group, pass_session
from hanse.cli.selling.host_command import host_gateway
from hanse.cli.session import Session
from hanse.cli.settings import database_option, traces_options, while_stdin_open_option


@group(
    "gateway",
    short_help="Serve OpenAI's API, pay providers.",
    examples=(
        ("A key for an application", "hanse gateway keys create notebook"),
        ("Serve", "hanse gateway start"),
    ),
)
def gateway() -> None:
    """Serve OpenAI's API to applications and pay providers with vouchers.

    A gateway spends its owner's money: it listens on loopback unless told otherwise, and answers
    only to API keys that it issued.
    """


@gateway.command_of(
    "start",
    short_help="Serve until stopped.",
    has_settings=True,
    examples=(
        ("On this machine, paying with the user's money", "hanse gateway start"),
        (
            "By a key of its own, so that the wallet's stays offline",
            "hanse gateway start --key user --signer gateway",
        ),
        (
            "Sub-accounts by itself: 5 for each provider, at most 20 a day",
            "hanse gateway start --key gateway --fund-to 5 --fund-per-day 20",
        ),
        (
            "In front of servers of one's own, and paying nobody",
            "hanse gateway start --upstream http://127.0.0.1:8000/v1",
        ),
        (
            "Audited by itself, beside hanse audit watch",
            "hanse gateway start --key user --audit",
        ),
        ("Settings from a file, another port", "hanse gateway start --config g.toml --port 8441"),
    ),
)
@click.option("--key", default="user", help="Whose money: a key of this home.")
@click.option("--signer", help="Key that signs the vouchers. [default: the user's]")
@click.option("--keyring", is_flag=True, help="Take the password from the desktop's keyring.")
@click.option(
    "--upstream",
    multiple=True,
    metavar="URL[=MODEL,...]",
    help="Route to this OpenAI-compatible server instead of the market, unpaid; may be repeated. "
    "Its API key: HANSE_UPSTREAM_KEY, of the second HANSE_UPSTREAM_KEY_2 and so on.",
)
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8440, help="Port; 0 takes any.")
@click.option(
    "--requests-max", type=click.IntRange(1), default=1_024, help="Requests at work at once."
)
@click.option(
    "--body-bytes-max",
    type=click.IntRange(1),
    default=4 * 1024 * 1024,
    help="Largest request body.",
)
@click.option(
    "--drain-s",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    help="Seconds that requests at work may take once it is stopped.",
)
@click.option(
    "--allowed-origin",
    multiple=True,
    metavar="ORIGIN",
    help="Browser origin that may call (CORS); may be repeated.",
)
@choosing_options
@staying_options
@traces_options
@audit_option
@upkeep_options
@database_option
@click.option("--access-log/--no-access-log", default=False, help="One line a request.")
@while_stdin_open_option
@click.option(
    "--auto-dispute/--no-auto-dispute",
    default=True,
    help="Prove a provider's cheat on the chain at once, with the signer's native coin.",
)
@pass_session
def start(session: Session, /, **options: Any) -> None:
    """Serve OpenAI's API until Ctrl-C, and pay providers with vouchers.

    With --upstream it routes to servers of one's own instead: no wallet, no chain, no receipts.
    Applications need the base URL that is shown and a key of `hanse gateway keys create`. Ctrl-C or
    SIGTERM finishes the requests at work before it ends.
    """
    from hanse.cli.buying.gateway_process import serve

    serve(session, options)


@gateway.command_of(
    "reload",
    short_help="Let a running gateway read its file anew.",
    examples=(("After a change in the file of --config", "hanse gateway reload"),),
)
@pass_session
def reload(session: Session) -> None:
    """Let every running gateway of this home read its file of --config anew.

    The file is checked first. What is taken at the start only (address, port, keys, databases,
    funding, traces and the like) the gateway names in its log if it was changed.
    """
    from hanse.cli.buying.gateway_running import reload_running

    asked = reload_running(session.home, start)
    session.output.show(
        {"reloaded": [{"pid": one.pid, "config": one.config} for one in asked]},
        lambda: "\n".join(f"asked process {one.pid} to read {one.config}" for one in asked),
    )


for part in (gateway_keys, gateway_limits, gateway_ladders, fund_gateway, host_gateway):
    gateway.add_command(part)
