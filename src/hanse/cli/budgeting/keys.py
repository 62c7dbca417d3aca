"""`hanse gateway keys`: the API keys that a gateway issues, their reach and their limits."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import click

from hanse.cli.budgeting.options import change_terms, describe_limits, terms_options
from hanse.cli.framework import group, pass_session
from hanse.cli.moments import format_time
from hanse.cli.session import Session

if TYPE_CHECKING:
    from hanse.gateway.keys import ApiKey, ApiKeys


@group(
    "keys",
    short_help="API keys that this gateway issues.",
    examples=(
        ("A key for an application", "hanse gateway keys create notebook"),
        ("Which there are", "hanse gateway keys list"),
    ),
)
def gateway_keys() -> None:
    """Create, list, change and revoke the API keys of this gateway.

    A running gateway on the same home folder sees a change within a second.
    """


@gateway_keys.command_of(
    "create",
    short_help="Issue an API key; it is shown once.",
    examples=(
        ("A key for an application", "hanse gateway keys create notebook"),
        (
            "Straight into a variable",
            "export OPENAI_API_KEY=$(hanse gateway keys create ci --json | jq -r .api_key)",
        ),
        (
            "For one model, a page and a month, with a budget",
            "hanse gateway keys create shop --model small --origin https://shop.example "
            "--days 30 --limit requests/minute=60 --limit money/day=2.50",
        ),
        (
            "For a game server, which mints a key for each player",
            "hanse gateway keys create game --may-mint --user-limit money/day=0.10 "
            "--at-limit degrade --ladder npc",
        ),
    ),
)
@click.argument("name")
@click.option("--model", multiple=True, help="Model it is for; may be repeated. [default: all]")
@click.option(
    "--path", multiple=True, help="Path it is for, or a folder /v1/models/*. [default: all]"
)
@click.option("--origin", multiple=True, help="Browser origin it works from. [default: any]")
@click.option("--days", type=click.FloatRange(0, min_open=True), help="Days it works.")
@click.option("--may-mint", is_flag=True, help="It may issue short-lived keys within its reach.")
@terms_options
@pass_session
async def create_key(session: Session, /, name: str, **options: Any) -> None:
    """Issue an API key labelled NAME.

    The key is shown here and never again: only its hash is kept.
    """
    from hanse.gateway.keys import KeyTerms

    reach = KeyTerms(
        models=options["model"],
        paths=options["path"],
        origins=options["origin"],
        may_mint=options["may_mint"],
    )
    terms = change_terms(session, reach, options)
    ttl_s = None if options["days"] is None else max(1, round(options["days"] * 86_400))
    async with _open_keys(session) as keys:
        key, text = await keys.create(name, terms, ttl_s=ttl_s)
    session.output.show(
        {**key.to_document(), "api_key": text},
        lambda: session.output.fields((("API key", text), ("id", key.id), ("name", key.name))),
    )
    session.output.note("Keep it now: only its hash is stored, it cannot be shown again.")
    await _note_missing_ladder(session, key)


@gateway_keys.command_of(
    "list",
    short_help="List the API keys, without their text.",
    examples=(("Every key, revoked ones too", "hanse gateway keys list"),),
)
@pass_session
async def list_keys(session: Session) -> None:
    """List every key that was issued, minted ones until a day after their end."""
    async with _open_keys(session) as keys:
        found = await keys.list()
    rows = [
        (
            key.id,
            key.name,
            format_time(key.created_at),
            _format_state(key),
            _format_reach(key),
            _format_limits(session, key),
        )
        for key in found
    ]
    if not found:
        session.output.note("No keys; issue one with: hanse gateway keys create NAME")
    columns = ("id", "name", "created", "state", "reach", "limits")
    session.output.show(
        {"keys": [key.to_document() for key in found]},
        lambda: session.output.table(columns, rows) if rows else None,
    )


@gateway_keys.command_of(
    "change",
    short_help="Change an API key's limits, and what happens at them.",
    examples=(
        (
            "A higher limit, and none on requests",
            "hanse gateway keys change 5f0c2a9be1d4 --limit money/day=5 "
            "--limit requests/minute=none",
        ),
        ("Wait up to 10 s for it", "hanse gateway keys change 5f0c2a9be1d4 --at-limit queue"),
    ),
)
@click.argument("key_id", metavar="ID")
@terms_options
@pass_session
async def change_key(session: Session, /, key_id: str, **options: Any) -> None:
    """Change the key with this ID; what is not named stays. Its reach stays what it was made with.

    Keys that it has minted keep limits of their own, and stay within the changed ones of this key.
    """
    async with _open_keys(session) as keys:
        key = await keys.change(key_id, lambda before: change_terms(session, before, options))
    session.output.show(
        key.to_document(),
        lambda: session.output.fields(
            (
                ("id", key.id),
                ("name", key.name),
                ("limits", describe_limits(session, key.terms.limits)),
                ("of each end user", describe_limits(session, key.terms.user_limits)),
                ("at a limit", str(key.terms.at_limit)),
            )
        ),
    )
    await _note_missing_ladder(session, key)


@gateway_keys.command_of(
    "revoke",
    short_help="Make an API key stop working.",
    examples=(("By the id that list shows", "hanse gateway keys revoke 5f0c2a9be1d4"),),
)
@click.argument("key_id", metavar="ID")
@pass_session
async def revoke_key(session: Session, /, key_id: str) -> None:
    """Make the key with this ID, and all that it minted, stop working."""
    async with _open_keys(session) as keys:
        key = await keys.revoke(key_id)
    session.output.show(key.to_document(), lambda: f"{key.name} ({key.id}) no longer works.")


@asynccontextmanager
async def _open_keys(session: Session) -> "AsyncIterator[ApiKeys]":
    from hanse.gateway.keys import open_api_keys
    from hanse.store import open_database

    database = await open_database(session.get_database_path("gateway"))
    try:
        yield await open_api_keys(database, time.time)
    finally:
        await database.close()


async def _note_missing_ladder(session: Session, key: "ApiKey") -> None:
    """Say that a key would degrade along a ladder that is not there; it may be set later."""
    from hanse.gateway.budgets.configuration import open_configuration
    from hanse.store import open_database

    if key.terms.at_limit != "degrade":
        return
    name = key.terms.ladder
    database = await open_database(session.get_database_path("gateway"))
    try:
        ladders = (await open_configuration(database)).budgets.ladders
    finally:
        await database.close()
    if name not in ladders:
        session.output.note(
            f"There is no ladder {name or 'named'}: at a limit this key is refused until you "
            f"run: hanse gateway ladders set {name or 'NAME'} STEP..."
            + ("" if name else f", then: hanse gateway keys change {key.id} --ladder NAME")
        )


def _format_state(key: "ApiKey") -> str:
    if key.revoked_at is not None:
        return f"revoked {format_time(key.revoked_at)}"
    if key.expires_at is None:
        return "works"
    if key.expires_at <= time.time():
        return f"expired {format_time(key.expires_at)}"
    return f"until {format_time(key.expires_at)}"


def _format_limits(session: Session, key: "ApiKey") -> str:
    """Of the key, of each of its end users, and what happens at them unless they refuse."""
    terms = key.terms
    parts = [describe_limits(session, terms.limits)]
    if terms.user_limits.to_document():
        parts.append(f"each end user {describe_limits(session, terms.user_limits)}")
    if terms.at_limit != "refuse":
        parts.append(f"then {terms.at_limit}" + (f" by {terms.ladder}" if terms.ladder else ""))
    return "; ".join(parts)


def _format_reach(key: "ApiKey") -> str:
    terms = key.terms
    parts = [*terms.models, *terms.paths, *terms.origins]
    parts += ["may mint"] if terms.may_mint else []
    parts += [f"of {key.parent}"] if key.parent else []
    return ", ".join(parts) or "everything"
