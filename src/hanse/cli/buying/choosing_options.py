"""Options of how providers are chosen: what counts how much, where this side is, and trials."""

from pathlib import Path
from typing import Any

import click

from hanse.cli.framework import option_block

POLICY_HELP = "cheapest, fastest, balanced, or own weights: price=3,speed=1."

choosing_options = option_block(
    click.option("--policy", default="cheapest", help=POLICY_HELP),
    click.option("--region", default="", help="Where this gateway is, such as eu, for locality."),
    click.option(
        "--trial-percent",
        type=click.FloatRange(0, 100),
        default=2.0,
        help="Of the requests, how many may try a provider that was hardly asked before.",
    ),
    click.option(
        "--evidence",
        type=click.Path(path_type=Path, file_okay=False),
        help="Folder of evidence files of audits: choices go by the reputations that follow.",
    ),
)
"""The options of a command that buys; docs/gateway/matching.md tells of them."""


def read_choosing(options: dict[str, Any]) -> dict[str, Any]:
    """What the options say of choosing, as a gateway's settings name it.

    Raises:
        RequestError: a policy or region cannot be read.
    """
    from hanse.market import read_policy
    from hanse.protocol.wire import parse_region

    return {
        "policy": read_policy(options["policy"]),
        "region": parse_region(options["region"]) if options["region"] else "",
        "trial_share": options["trial_percent"] / 100,
    }
