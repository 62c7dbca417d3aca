"""Limits and scopes as options: `--limit requests/minute=60 --limit money/day=2.50`."""

from typing import TYPE_CHECKING, Any

import click

from hanse.cli.framework import Decorator, option_block
from hanse.cli.session import Session
from hanse.protocol.errors import RequestError

if TYPE_CHECKING:
    from hanse.gateway.budgets.limits import Limits
    from hanse.gateway.keys import KeyTerms

NONE = "none"

_LIMIT_HELP = "MEASURE/WINDOW=N: requests, tokens or money in a minute or day; N may be none."


def limit_option(name: str, what: str) -> Decorator:
    """A `--limit` option that may be repeated."""
    return click.option(name, multiple=True, metavar="LIMIT", help=f"{what} {_LIMIT_HELP}")


terms_options = option_block(
    limit_option("--limit", "Of the key and the keys that it mints."),
    limit_option("--user-limit", "Of each end user."),
    click.option(
        "--at-limit",
        type=click.Choice(["refuse", "queue", "degrade"]),
        help="What happens to a request over a limit.",
    ),
    click.option(
        "--queue-s",
        type=click.FloatRange(0, 600),
        help="Seconds that a request of it may wait for a limit.",
    ),
    click.option("--ladder", help="Which ladder it degrades along."),
    click.option(
        "--class",
        "request_class",
        type=click.Choice(["interactive", "ambient", "background"]),
        help="Of its requests in the queue, and the highest that they may ask for.",
    ),
)
"""What may be changed of a key after it was made."""


def read_limits(session: Session, given: tuple[str, ...], before: "Limits") -> "Limits":
    """Limits with some of them changed.

    Raises:
        RequestError: `usage`, `amount_malformed`.
    """
    import msgspec

    from hanse.gateway.budgets.limits import LIMIT_MAX

    changed: dict[str, int | None] = {}
    for text in given:
        path, found, number = text.partition("=")
        measure, _, window = path.partition("/")
        name = f"{measure}_per_{window}"
        if not found or name not in before.__struct_fields__:
            raise RequestError(
                "usage", f"{text[:80]!r} is not such as requests/minute=60 or money/day=2.50"
            )
        changed[name] = None if number == NONE else _read_number(session, measure, number)
        if (changed[name] or 0) > LIMIT_MAX:
            raise RequestError("usage", f"{text[:80]} is above {LIMIT_MAX}, the highest limit")
    return msgspec.structs.replace(before, **changed)


def change_terms(session: Session, before: "KeyTerms", options: dict[str, Any]) -> "KeyTerms":
    """Terms with what the options name changed."""
    import msgspec

    from hanse.gateway.keys import AtLimit

    changed: dict[str, Any] = {
        "limits": read_limits(session, options["limit"], before.limits),
        "user_limits": read_limits(session, options["user_limit"], before.user_limits),
    }
    if options["at_limit"] is not None:
        changed["at_limit"] = AtLimit(options["at_limit"])
    for name in ("queue_s", "ladder", "request_class"):
        if options[name] is not None:
            changed[name] = options[name]
    return msgspec.structs.replace(before, **changed)


def describe_limits(session: Session, limits: "Limits") -> str:
    """One line for people."""
    found = []
    for name, most in limits.to_document().items():
        measure, window = name.split("_per_")
        shown = _show_money(session, int(most)) if measure == "money" else f"{most} {measure}"
        found.append(f"{shown} a {window}")
    return ", ".join(found) or "none"


def _read_number(session: Session, measure: str, text: str) -> int:
    if measure == "money":
        from hanse.cli.network import load_network  # which brings the chain's libraries

        return load_network(session.home).units.parse(text)
    if not text.isdecimal() or len(text) > 19:
        raise RequestError("usage", f"{text[:40]!r} is no number of {measure}")
    return int(text)


def _show_money(session: Session, amount: int) -> str:
    try:
        from hanse.cli.network import load_network  # which brings the chain's libraries

        return load_network(session.home).units.format(amount)
    except RequestError:  # the keys' home need not know the network
        return f"{amount} base units"
