"""`hanse gateway`: OpenAI's API for applications, and the keys that they use."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import click

from hanse.cli.framework import group, pass_session
from hanse.cli.moments import format_time
from hanse.cli.session import Session
from hanse.cli.settings import database_option, traces_options

if TYPE_CHECKING:
    from hanse.gateway.keys import ApiKey, ApiKeys


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
        ("Settings from a file, another port", "hanse gateway start --config g.toml --port 8441"),
    ),
)
@click.option("--key", default="user", help="Whose money: a key of this home.")
@click.option("--signer", help="Key that signs the vouchers. [default: the user's]")
@click.option("--keyring", is_flag=True, help="Take the password from the desktop's keyring.")
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
@traces_options
@database_option
@click.option("--access-log/--no-access-log", default=False, help="One line a request.")
@click.option(
    "--auto-dispute/--no-auto-dispute",
    default=True,
    help="Prove a provider's cheat on the chain at once, with the signer's native coin.",
)
@pass_session
def start(session: Session, /, **options: Any) -> None:
    """Serve OpenAI's API until Ctrl-C, and pay providers with vouchers.

    Applications need the base URL that is shown and a key of `hanse gateway keys create`. Ctrl-C or
    SIGTERM finishes the requests at work before it ends.
    """
    from hanse.cli.buying.gateway_process import serve

    serve(session, options)


@gateway.group_of(
    "keys",
    short_help="API keys that this gateway issues.",
    examples=(
        ("A key for an application", "hanse gateway keys create notebook"),
        ("Which there are", "hanse gateway keys list"),
    ),
)
def gateway_keys() -> None:
    """Create, list and revoke the API keys of this gateway.

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
    ),
)
@click.argument("name")
@pass_session
async def create_key(session: Session, /, name: str) -> None:
    """Issue an API key labelled NAME.

    The key is shown here and never again: only its hash is kept.
    """
    async with _open_keys(session) as keys:
        key, text = await keys.create(name)
    session.output.show(
        {**_to_document(key), "api_key": text},
        lambda: session.output.fields((("API key", text), ("id", key.id), ("name", key.name))),
    )
    session.output.note("Keep it now: only its hash is stored, it cannot be shown again.")


@gateway_keys.command_of(
    "list",
    short_help="List the API keys, without their text.",
    examples=(("Every key, revoked ones too", "hanse gateway keys list"),),
)
@pass_session
async def list_keys(session: Session) -> None:
    """List every key that was ever issued."""
    async with _open_keys(session) as keys:
        found = await keys.list()
    rows = [(key.id, key.name, format_time(key.created_at), _format_state(key)) for key in found]
    if not found:
        session.output.note("No keys; issue one with: hanse gateway keys create NAME")
    session.output.show(
        {"keys": [_to_document(key) for key in found]},
        lambda: session.output.table(("id", "name", "created", "state"), rows) if rows else None,
    )


@gateway_keys.command_of(
    "revoke",
    short_help="Make an API key stop working.",
    examples=(("By the id that list shows", "hanse gateway keys revoke 5f0c2a9be1d4"),),
)
@click.argument("key_id", metavar="ID")
@pass_session
async def revoke_key(session: Session, /, key_id: str) -> None:
    """Make the key with this ID stop working; revoking twice changes nothing."""
    async with _open_keys(session) as keys:
        key = await keys.revoke(key_id)
    session.output.show(_to_document(key), lambda: f"{key.name} ({key.id}) no longer works.")


@asynccontextmanager
async def _open_keys(session: Session) -> "AsyncIterator[ApiKeys]":
    from hanse.gateway.keys import open_api_keys
    from hanse.store import open_database

    database = await open_database(session.get_database_path("gateway"))
    try:
        yield await open_api_keys(database, time.time)
    finally:
        await database.close()


def _format_state(key: "ApiKey") -> str:
    return "works" if key.revoked_at is None else f"revoked {format_time(key.revoked_at)}"


def _to_document(key: "ApiKey") -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
    }
