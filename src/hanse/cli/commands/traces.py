"""`hanse traces`: the encrypted bodies and answers of requests."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from hanse.cli.framework import group, pass_session
from hanse.cli.moments import format_time
from hanse.cli.session import Session
from hanse.protocol.errors import RequestError


def _side_options(function: Callable[..., Any]) -> Callable[..., Any]:
    provider = click.option(
        "--provider", metavar="NAME", help="A provider's traces. [default: the user's]"
    )
    key = click.option("--key", default="user", help="Whose traces: a user's key of this home.")
    return key(provider(function))


def _reading_options(function: Callable[..., Any]) -> Callable[..., Any]:
    file = click.option(
        "--file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="An exported trace, instead of ID.",
    )
    keyring = click.option(
        "--keyring", is_flag=True, help="Take the password from the desktop's keyring."
    )
    return file(keyring(function))


@group(
    "traces",
    short_help="List, read, check and forget encrypted traces.",
    examples=(
        ("Keep traces from now on", "hanse gateway start --traces ./traces"),
        ("Which there are", "hanse traces list"),
        ("Is it what was signed for", "hanse traces check 0x5f0c..."),
        ("Make one unreadable for ever", "hanse traces forget 0x5f0c..."),
    ),
)
def traces() -> None:
    """Read what was asked and answered, where `--traces` of gateway or provider kept it.

    A trace is named by its request id or by its hash. It is encrypted for the user and the provider
    of its request; reading one takes the password of this side's encryption key.
    """


@traces.command_of(
    "list",
    short_help="List the latest traces.",
    examples=(
        ("The user's latest 20", "hanse traces list"),
        ("A provider's, for a program", "hanse traces list --provider provider --json"),
    ),
)
@_side_options
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, help="How many, newest first.")
@pass_session
async def list_traces(session: Session, /, key: str, provider: str | None, limit: int) -> None:
    """List traces, newest first, and what was dropped; needs neither network nor password.

    "pending" is on its way to the store, "lost" never arrived there, "forgotten" cannot be read any
    more by anybody.
    """
    from hanse.cli.tracing.reading import drop_to_document, note_to_document
    from hanse.cli.tracing.side import open_trace_side

    async with open_trace_side(session, key, provider) as side:
        notes, drops = await side.notes.list_newest(limit), await side.notes.list_drops()
    output = session.output
    rows = [
        (note.trace_hash, note.request_id, format_time(note.created_at), note.object_bytes,
         note.state.value, note.location)
        for note in notes
    ]  # fmt: skip
    for drop in drops:
        output.note(
            f"{drop.dropped} requests left no trace: {drop.reason}, "
            f"last {format_time(drop.last_at)}"
        )
    columns = ("trace", "request", "noted", "bytes>", "state", "store")
    output.show(
        {
            "traces": [note_to_document(note) for note in notes],
            "dropped": [drop_to_document(drop) for drop in drops],
        },
        lambda: output.table(columns, rows) if rows else "No traces; --traces keeps them.",
    )


@traces.command_of(
    "fetch",
    short_help="Fetch an encrypted trace and check its hash.",
    examples=(
        ("Is it there, and undamaged", "hanse traces fetch 0x5f0c..."),
        ("Keep its encrypted bytes", "hanse traces fetch 0x5f0c... --output trace.bin"),
    ),
)
@click.argument("name", metavar="ID")
@_side_options
@click.option(
    "--output", "target", type=click.Path(path_type=Path, dir_okay=False), help="File to write."
)
@pass_session
async def fetch(
    session: Session, /, name: str, key: str, provider: str | None, target: Path | None
) -> None:
    """Fetch the trace with this ID from its store; needs no password and decrypts nothing."""
    from hanse.cli.tracing.reading import write_new
    from hanse.cli.tracing.side import open_trace_side

    async with open_trace_side(session, key, provider) as side:
        content, trace_hash, keys = await side.fetch(name, None)
    if target is not None:
        write_new(target, content)
    sealed_to = [str(key.recipient) for key in keys]
    document = {"trace_hash": trace_hash, "bytes": len(content), "sealed_to": sealed_to}
    session.output.show(
        document,
        lambda: session.output.fields(
            (
                ("trace", trace_hash),
                ("bytes", f"{len(content)}, encrypted; their hash is right"),
                ("sealed to", ", ".join(sealed_to) or "nobody: it was forgotten"),
            )
        ),
    )


@traces.command_of(
    "decrypt",
    short_help="Show what was asked and answered.",
    examples=(
        ("The user's", "hanse traces decrypt 0x5f0c..."),
        ("A file from the other side, its answer only",
         "hanse traces decrypt --file trace.json --json | jq -r .response"),
    ),
)  # fmt: skip
@click.argument("name", required=False, default="", metavar="[ID]")
@_side_options
@_reading_options
@pass_session
async def decrypt(session: Session, /, name: str, **options: Any) -> None:
    """Decrypt the trace with this ID, or a file, with this side's own key and print it.

    The clear text goes to standard output and nowhere else.
    """
    from hanse.cli.tracing.reading import read_trace

    trace, trace_hash, _ = await read_trace(session, name, options)
    output = session.output
    body, response = (data.decode(errors="replace") for data in (trace.body, trace.response))
    session.output.show(
        {
            "trace_hash": trace_hash,
            "side": trace.side.value,
            "request_id": trace.request.request_id,
            "path": trace.path,
            "body": body,
            "response": response,
        },
        lambda: output.fields(
            (
                ("trace", f"{trace_hash}, as the {trace.side} saw it"),
                ("request", f"{trace.request.request_id}, {trace.path}"),
                ("asked", body),
                ("answered", response),
            )
        ),
    )


@traces.command_of(
    "check",
    short_help="Check a trace against the signed receipt.",
    examples=(
        ("Of the user", "hanse traces check 0x5f0c..."),
        ("And that the record binds it", "hanse traces check 0x5f0c... --proof proof.json"),
    ),
)
@click.argument("name", required=False, default="", metavar="[ID]")
@_side_options
@_reading_options
@click.option(
    "--proof",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Inclusion proof of the receipt's record, from hanse receipts prove.",
)
@pass_session
async def check(session: Session, /, name: str, proof: Path | None, **options: Any) -> None:
    """Decrypt a trace and check it: body, request, signature, answer, and the record if asked.

    Exit code 8 if anything does not fit. A trace whose request is in no book here is checked
    against the key that signed its receipt, which is shown: compare it with the Registry.
    """
    from hanse.cli.tracing.reading import check_proof, read_trace
    from hanse.settlement.traces.checking import check_trace

    trace, trace_hash, found = await read_trace(session, name, options)
    domain, receipt_key, held, is_ours = found
    check_trace(trace, domain, receipt_key, held)
    if proof is not None:
        check_proof(proof, trace, trace_hash, domain)
    receipt = trace.receipt.receipt
    document = {
        "checked": True,
        "trace_hash": trace_hash,
        "request_id": trace.request.request_id,
        "receipt_key": receipt_key,
        "receipt_key_known": is_ours,
        "sequence": receipt.sequence,
        "recorded": proof is not None,
    }
    session.output.show(
        document,
        lambda: session.output.fields(
            (
                ("checked", "body, request, receipt and answer fit together"),
                ("trace", trace_hash),
                ("request", trace.request.request_id),
                ("receipt", f"sequence {receipt.sequence} of {receipt.provider}"),
                ("receipt key", receipt_key if is_ours else f"{receipt_key} (ask the Registry)"),
                ("record", "bound by its leaf" if proof else "not asked (--proof)"),
            )
        ),
    )


@traces.command_of(
    "forget",
    short_help="Make traces unreadable for ever.",
    examples=(
        ("One", "hanse traces forget 0x5f0c..."),
        ("All of last year's", "hanse traces forget --before 2026-01-01"),
    ),
)
@click.argument("name", required=False, default="", metavar="[ID]")
@_side_options
@click.option("--before", metavar="DATE", help="All that were noted before this day (YYYY-MM-DD).")
@pass_session
async def forget(
    session: Session, /, name: str, key: str, provider: str | None, before: str | None
) -> None:
    """Destroy the sealed keys of a trace, then delete its object.

    From then on neither side can read this copy, also where the store keeps versions. The hash
    stays, since a record may bind it. Copies that were exported, the other side's own trace, and
    backups of this home are not reached.
    """
    from hanse.cli.tracing.reading import forget_traces, to_seconds
    from hanse.cli.tracing.side import open_trace_side

    if bool(name) == bool(before):
        raise RequestError("usage", "name one trace by its ID, or say --before DATE")
    async with open_trace_side(session, key, provider) as side:
        until = to_seconds(before) if before else 0
        forgotten, left = await forget_traces(side, name, until)
    session.output.show(
        {"forgotten": forgotten, "objects_left": left},
        lambda: f"{forgotten} forgotten: their keys are destroyed, nobody can read them any more.",
    )
    if left:
        session.output.note(
            f"{left} objects could not be deleted and are noise; gateway and provider try again."
        )


@traces.command_of(
    "export",
    short_help="Print an encrypted trace with its sealed keys.",
    examples=(("For the other side, who opens it", "hanse traces export 0x5f0c... > trace.json"),),
)
@click.argument("name", metavar="ID")
@_side_options
@pass_session
async def export(session: Session, /, name: str, key: str, provider: str | None) -> None:
    """Print the trace with this ID as one document, still encrypted; needs no password.

    Only the user and the provider of its request can open it. What was exported is not reached by
    `forget`.
    """
    from hanse.cli.tracing.side import open_trace_side
    from hanse.settlement.traces.bundle import encode_bundle

    async with open_trace_side(session, key, provider) as side:
        note = await side.get_note(name)
        content, trace_hash, keys = await side.fetch(name, None)
    if not keys:
        raise RequestError("not_found", f"trace {trace_hash} was forgotten: nobody can open it")
    document = encode_bundle(content, trace_hash, note.request_id, keys)
    session.output.show(document, lambda: json.dumps(document))
