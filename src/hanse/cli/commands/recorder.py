"""`hanse recorder`: commit what both sides of the market agree on, and look at what they do not."""

from typing import Any

import click

from hanse.cli.framework import group, pass_session
from hanse.cli.moments import format_time
from hanse.cli.session import Session
from hanse.cli.settings import database_option, while_stdin_open_option


@group(
    "recorder",
    short_help="Record matched receipts on the chain.",
    examples=(
        ("Run one", "hanse recorder start"),
        ("What of mine is not matched, and why", "hanse recorder unmatched"),
        ("The recorders that I use, and how they behaved", "hanse recorder list"),
    ),
)
def recorder() -> None:
    """Match what providers and users submit, and commit one root an interval for all of them.

    Anyone may run a recorder, and nobody has to believe one: those it serves hold what it says
    against the chain, and go to another. Which recorders this home uses stands in its
    network.json, under "recorders".
    """


@recorder.command_of(
    "start",
    short_help="Take submissions, commit roots, until stopped.",
    has_settings=True,
    examples=(
        ("On this machine", "hanse recorder start"),
        ("A commit every 50 blocks", "hanse recorder start --every-blocks 50"),
        ("Over PostgreSQL", "hanse recorder start --database postgresql://localhost/recorder"),
    ),
)
@click.option("--name", default="recorder", help="Of its key and its folder.")
@click.option("--keyring", is_flag=True, help="Take the password from the desktop's keyring.")
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8700, help="Port; 0 takes any.")
@click.option(
    "--every-blocks",
    type=click.IntRange(1),
    default=10,
    help="Blocks between commits; none is sent when nothing is matched.",
)
@while_stdin_open_option
@database_option
@pass_session
async def start(session: Session, /, **options: Any) -> None:
    """Run a recorder until Ctrl-C.

    Its key needs native coin for one transaction of about 35,000 gas an interval. The key is made
    with `hanse keys create recorder`. One process to a key: its commits are one chain of heads.
    """
    from hanse.cli.recording.process import serve

    await serve(session, options)


@recorder.command_of(
    "unmatched",
    short_help="List what is not matched, and why.",
    examples=(
        ("As the user", "hanse recorder unmatched"),
        ("As a provider", "hanse recorder unmatched --name provider"),
        ("For a program", "hanse recorder unmatched --json"),
    ),
)
@click.option("--key", default="user", help="Whose receipts: a key of this home.")
@click.option("--signer", help="Key that signs the vouchers. [default: the user's]")
@click.option("--name", help="A provider of this home instead, by NAME-receipt's signature.")
@click.option("--keyring", is_flag=True, help="Take the password from the desktop's keyring.")
@pass_session
async def unmatched(session: Session, /, **options: Any) -> None:
    """Ask each recorder of network.json which entries of mine are unmatched.

    missing_at_user, missing_at_provider: only one side has submitted it yet; digests_differ: the
    two hold different receipts for one sequence; fees_differ: one of them states a wrong fee;
    recorded_differently: another receipt stands already. Each side runs the resume handshake and
    submits again by itself; what stays unmatched never enters a root.
    """
    from hanse.cli.recording.looks import fetch_unmatched

    found, silent = await fetch_unmatched(session, options)
    rows = [
        (
            one["url"],
            one["side"],
            one["entry"]["user"],
            one["entry"]["provider"],
            one["entry"]["sequence"],
            one["reason"],
        )
        for one in found
    ]
    for url, reason in silent.items():
        session.output.note(f"{url}: {reason}")
    columns = ("recorder", "held by", "user", "provider", "sequence>", "reason")
    session.output.show(
        {"unmatched": found, "silent": silent},
        lambda: session.output.table(columns, rows) if rows else "Everything is matched.",
    )


@recorder.command_of(
    "list",
    short_help="List the recorders in use, and how they behaved.",
    examples=(
        ("As the user", "hanse recorder list"),
        ("As a provider, with the evidence", "hanse recorder list --name provider --json"),
    ),
)
@click.option("--key", default="user", help="Whose books: a key of this home.")
@click.option("--name", help="A provider of this home instead.")
@pass_session
async def list_recorders(session: Session, /, key: str, name: str | None) -> None:
    """List the recorders that one side has met, with what is recorded, promised and waiting.

    A recorder that lied, stalled or forked its chain of heads is not used any more; the evidence is
    in the --json document. Needs neither network nor password.
    """
    from hanse.cli.recording.looks import read_recorders

    document = await read_recorders(session, key, name)
    rows = [
        (
            found["url"],
            found["address"],
            found["number"],
            found["fault"] or "none",
            format_time(found["found_at"]) if found["fault"] else "",
            found["reason"],
        )
        for found in document["recorders"]
    ]
    counts = document["receipts"]
    said = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "none"
    columns = ("recorder", "address", "verified>", "fault", "found", "what")
    session.output.show(
        document,
        lambda: session.output.table(columns, rows) if rows else "No recorder was met yet.",
    )
    session.output.note(f"receipts: {said}")
