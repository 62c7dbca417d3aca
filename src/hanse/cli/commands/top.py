"""`hanse top`: a running gateway, live."""

import sys

import click

from hanse.cli.framework import command, pass_session
from hanse.cli.session import Session


@command(
    "top",
    short_help="Watch a gateway: requests, spend, limits.",
    examples=(
        ("The gateway on this machine, by a key of its own", "hanse top --api-key hgw_..."),
        ("With the key in OPENAI_API_KEY, another address", "hanse top --url http://10.0.0.5:8440"),
        ("Once, for a program", "hanse top --json | jq .in_flight"),
    ),
)
@click.option("--url", default="http://127.0.0.1:8440", help="Address of the gateway.")
@click.option(
    "--api-key",
    envvar=("HANSE_API_KEY", "OPENAI_API_KEY"),
    help="A key of this gateway, not a minted one. [default: $HANSE_API_KEY or $OPENAI_API_KEY]",
)
@click.option(
    "--every-s",
    type=click.FloatRange(0.2, 3_600),
    default=2.0,
    help="Seconds between looks.",
)
@click.option("--once", is_flag=True, help="One look; so it is in a pipe and with --json too.")
@pass_session
async def top(
    session: Session, /, url: str, api_key: str | None, every_s: float, once: bool
) -> None:
    """Show what a running gateway does, until Ctrl-C.

    Requests and their times by stage, providers and models, what was spent since the gateway's
    start, how full each limit is, and the newest requests. Never what was asked or answered.
    """
    from hanse.cli.buying.gateway_view import fetch_once, watch

    if not api_key:
        raise click.UsageError(
            "A key of the gateway is needed: --api-key, or HANSE_API_KEY in the environment; "
            "issue one with: hanse gateway keys create top"
        )
    if once or session.output.as_json or not sys.stdout.isatty():
        await fetch_once(session.output, url, api_key)
    else:
        await watch(session.output, url, api_key, every_s)
