"""The options of whoever sells: where it listens, what it registers with, when it settles."""

import click

from hanse.cli.framework import option_block
from hanse.cli.settings import database_option, traces_options, while_stdin_open_option

selling_options = option_block(
    click.option("--host", default="127.0.0.1", help="Address to listen on."),
    click.option(
        "--port", type=click.IntRange(0, 65_535), default=8801, help="Port; 0 takes a free one."
    ),
    click.option(
        "--endpoint", multiple=True, metavar="URL", help="Public URL for the offers, best first."
    ),
    click.option("--region", default="", help="Where the models run, for the offers, such as eu."),
    click.option(
        "--register/--no-register", default=None, help="Register and stake without asking."
    ),
    click.option("--stake", help="What to register with. [default: the least that counts]"),
    click.option("--payee", default="", help="Who is paid. [default: the owner]"),
    click.option(
        "--settle-every",
        type=click.FloatRange(0),
        default=86_400.0,
        help="Seconds that a claim may wait for its settlement; 0: only refunds and you settle.",
    ),
    click.option("--exposure", metavar="AMOUNT", help="Settle at once when more than this waits."),
    click.option(
        "--gas-percent",
        type=click.FloatRange(0, 100),
        default=1.0,
        help="Most of a settlement's value that its gas may take.",
    ),
    click.option(
        "--native-price",
        metavar="AMOUNT",
        help="What one native coin is worth, to weigh gas. [default: 0 on a development chain]",
    ),
    traces_options,
    database_option,
    while_stdin_open_option,
    click.option(
        "--settle-on-stop/--no-settle-on-stop", default=False, help="Settle when stopped."
    ),
)
"""Of `hanse provider start` and `hanse gateway host`."""
