"""The cheats of `--cheat` by name: which there are, and on which chain nobody may use them."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from hanse.cli.framework import option_block
from hanse.cli.output import clean
from hanse.protocol.errors import RequestError

if TYPE_CHECKING:
    from hanse.cli.network import Network

REPLACING = (
    "quantise",
    "swap",
    "other-copy",
    "skip-layer",
    "kv4",
    "forward",
    "cheap-text-prefill",
)
"""They answer by something else than what is offered; one of them at a time."""

ENGINE_CHEATS = (*REPLACING, "drop-system")
BROKER_CHEATS = ("overbill", "equivocate", "overclaim")
CHEATS = (*ENGINE_CHEATS, *BROKER_CHEATS)

WITH = {
    "swap": "the model file to serve instead",
    "other-copy": "the other provider's copy",
    "forward": "the base URL to forward to, .../v1",
    "cheap-text-prefill": "the cheap copy that writes the text",
}
"""Cheats that need `--cheat-with`, and what it names."""

cheat_options = option_block(
    click.option(
        "--cheat",
        "cheat",
        multiple=True,
        type=click.Choice(CHEATS),
        metavar="NAME",
        help=f"DEVELOPMENT ONLY, cheat the users: {', '.join(CHEATS)}; may be repeated.",
    ),
    click.option(
        "--cheat-with",
        metavar="PATH_OR_URL",
        help="What swap, other-copy, forward (URL#model) and cheap-text-prefill serve instead.",
    ),
)


def check_cheats(network: "Network", options: dict[str, Any]) -> tuple[str, ...]:
    """The cheats that were asked for, in order, each once; says so loudly if there are any.

    Raises:
        RequestError: not on a development chain, or they do not fit together.
    """
    from hanse.sdk.settings import DEVELOPMENT_CHAIN_ID

    names = tuple(dict.fromkeys(options["cheat"]))
    chain_id = network.deployment.chain_id
    if names and chain_id != DEVELOPMENT_CHAIN_ID:
        raise RequestError(
            "configuration_invalid",
            f"--cheat {', '.join(names)} is refused on chain {chain_id}: it cheats the users of "
            f"this market; only the local chain {DEVELOPMENT_CHAIN_ID} has none that could lose",
        )
    _check_together(names, options["cheat_with"])
    if names:
        _warn(names)
    return names


def _check_together(names: Sequence[str], what: str | None) -> None:
    replacing = [name for name in names if name in REPLACING]
    if len(replacing) > 1:
        raise RequestError(
            "usage", f"--cheat {' and '.join(replacing)} exclude each other: take one of them"
        )
    needing = [name for name in names if name in WITH]
    if needing and not what:
        raise RequestError("usage", f"--cheat {needing[0]} needs --cheat-with: {WITH[needing[0]]}")
    if what and not needing:
        raise RequestError("usage", f"--cheat-with is for --cheat {', '.join(WITH)}")


def _warn(names: Sequence[str]) -> None:
    """On standard error, whatever else is silenced."""
    line = "!" * 78
    sys.stderr.write(
        f"{line}\n"
        f"WARNING: this provider CHEATS its users on purpose: {clean(', '.join(names))}.\n"
        "It is for tests and demonstrations on a local chain, and will be found out.\n"
        f"{line}\n"
    )
    sys.stderr.flush()
