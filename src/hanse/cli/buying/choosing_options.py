"""Options of how providers are chosen: what counts how much, where this side is, and trials."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:  # help and completion must not wait for the SDK's own imports
    from hanse.sdk.settings import Settings

POLICY_HELP = "cheapest, fastest, balanced, or own weights: price=3,speed=1."

_OPTIONS = (
    click.option("--policy", default="cheapest", help=POLICY_HELP),
    click.option("--region", default="", help="Where this gateway is, such as eu, for locality."),
    click.option(
        "--trial-percent",
        type=click.FloatRange(0, 100),
        default=2.0,
        help="Of the requests, how many may try a provider that was hardly asked before.",
    ),
)


def choosing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a command that buys; docs/gateway/matching.md tells of them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def with_choosing(options: dict[str, Any], settings: "Settings") -> "Settings":
    """The settings with what the options say of choosing.

    Raises:
        RequestError: a policy or region cannot be read.
    """
    from hanse.market import read_policy
    from hanse.protocol.wire import parse_region
    from hanse.sdk.choosing import Choosing

    choosing = Choosing(
        read_policy(options["policy"]),
        parse_region(options["region"]) if options["region"] else "",
        options["trial_percent"] / 100,
    )
    return replace(settings, choosing=choosing)
