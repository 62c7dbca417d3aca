"""`hanse gateway limits` and `hanse gateway ladders`: what holds for the whole gateway."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import click

from hanse.cli.budgeting.options import describe_limits, limit_option, read_limits
from hanse.cli.framework import command, group, pass_session
from hanse.cli.session import Session
from hanse.protocol.errors import RequestError

if TYPE_CHECKING:
    from hanse.gateway.budgets.configuration import Configuration, GatewayBudgets


@command(
    "limits",
    short_help="Show or set the limits of the whole gateway.",
    examples=(
        ("What holds", "hanse gateway limits"),
        (
            "At most 20 a day, over all keys",
            "hanse gateway limits --limit money/day=20 --limit requests/minute=600",
        ),
        ("Lift one", "hanse gateway limits --limit requests/minute=none"),
    ),
)
@limit_option("--limit", "Of all keys together.")
@pass_session
async def gateway_limits(session: Session, /, limit: tuple[str, ...]) -> None:
    """Show what all API keys together may spend, after setting what is named.

    A running gateway on the same home folder follows within a second.
    """
    import msgspec

    def change(before: "GatewayBudgets") -> "GatewayBudgets":
        limits = read_limits(session, limit, before.limits)
        return msgspec.structs.replace(before, limits=limits)

    async with _open_configuration(session) as configuration:
        after = await configuration.change(change) if limit else configuration.budgets
    session.output.show(
        {"limits": after.limits.to_document()},
        lambda: session.output.fields((("limits", describe_limits(session, after.limits)),)),
    )


@group(
    "ladders",
    short_help="What requests over a limit are led down.",
    examples=(
        ("Which there are", "hanse gateway ladders list"),
        (
            "A smaller model, then the engine here, then a sentence",
            'hanse gateway ladders set npc model=small local "canned=The innkeeper nods."',
        ),
    ),
)
def gateway_ladders() -> None:
    """Name the steps that a key with `--at-limit degrade` takes, first the first.

    `model=NAME` asks another model and is paid; `local` is the gateway's own engine and
    `canned=TEXT` a sentence: both are free. The answer's `hanse-degraded` header names the step.
    """


@gateway_ladders.command_of(
    "list",
    short_help="List the ladders.",
    examples=(("All of them", "hanse gateway ladders list"),),
)
@pass_session
async def list_ladders(session: Session) -> None:
    """List every ladder with its steps."""
    async with _open_configuration(session) as configuration:
        _show(session, configuration.budgets)


@gateway_ladders.command_of(
    "set",
    short_help="Make or replace a ladder; without steps it is removed.",
    examples=(
        ("Two steps", 'hanse gateway ladders set npc model=small "canned=Not now."'),
        ("Remove it", "hanse gateway ladders set npc"),
    ),
)
@click.argument("name")
@click.argument("steps", nargs=-1, metavar="STEP...")
@pass_session
async def set_ladder(session: Session, /, name: str, steps: tuple[str, ...]) -> None:
    """Give the ladder NAME these steps: `model=NAME`, `local` or `canned=TEXT`."""
    import msgspec

    from hanse.gateway.budgets.configuration import STEPS_MAX, parse_step

    parsed = tuple(parse_step(step) for step in steps)
    if len(parsed) > STEPS_MAX:
        raise RequestError("usage", f"{len(parsed)} steps, at most {STEPS_MAX}")

    def change(before: "GatewayBudgets") -> "GatewayBudgets":
        ladders = {key: value for key, value in before.ladders.items() if key != name}
        if parsed:
            ladders[name] = parsed
        return msgspec.structs.replace(before, ladders=ladders)

    async with _open_configuration(session) as configuration:
        _show(session, await configuration.change(change))


def _show(session: Session, budgets: "GatewayBudgets") -> None:
    rows = [
        (name, str(number), step.name, step.canned)
        for name, steps in sorted(budgets.ladders.items())
        for number, step in enumerate(steps, 1)
    ]
    if not rows:
        session.output.note("No ladders; make one with: hanse gateway ladders set NAME STEP...")
    session.output.show(
        {"ladders": budgets.to_document()["ladders"]},
        lambda: (
            session.output.table(("ladder", "step>", "goes to", "text"), rows) if rows else None
        ),
    )


@asynccontextmanager
async def _open_configuration(session: Session) -> "AsyncIterator[Configuration]":
    from hanse.gateway.budgets.configuration import open_configuration
    from hanse.store import open_database

    database = await open_database(session.get_database_path("gateway"))
    try:
        yield await open_configuration(database)
    finally:
        await database.close()
