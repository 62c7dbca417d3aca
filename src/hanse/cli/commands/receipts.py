"""`hanse receipts`: list, export and verify what providers signed."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hanse.cli.framework import group, pass_session
from hanse.cli.moments import format_time
from hanse.cli.session import Session
from hanse.protocol.errors import RequestError

if TYPE_CHECKING:
    from hanse.protocol.eip712 import Domain
    from hanse.protocol.messages import SignedReceipt
    from hanse.settlement.books.voucher_records import StoredReceipt


@group(
    "receipts",
    short_help="List, prove and verify receipts.",
    examples=(
        ("The latest", "hanse receipts list"),
        ("Keep one, and check it years later", "hanse receipts export > receipt.json"),
        ("Check it", "hanse receipts verify receipt.json"),
    ),
)
def receipts() -> None:
    """Show what providers signed for: what was asked, what was served, what it cost."""


@receipts.command_of(
    "list",
    short_help="List the latest receipts.",
    examples=(
        ("The latest 20", "hanse receipts list"),
        ("More, for a program", "hanse receipts list --limit 1000 --json"),
    ),
)
@click.option("--key", default="user", help="Whose receipts: a key of this home.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, help="How many, newest first.")
@pass_session
async def list_receipts(session: Session, /, key: str, limit: int) -> None:
    """List the receipts in this home's books, newest first; needs neither network nor password.

    "verified" means that the bytes received are the ones signed for; "unverified" that the end of
    the answer never came; "mismatched" that they differ, which is evidence against the provider;
    "uncommitted" that the offer promised a commitment with each bill and this bill has none, which
    is evidence by itself (hanse audit run).
    """
    from hanse.cli.network import load_network

    output, units = session.output, load_network(session.home).units
    async with _open_book(session, key) as book:
        found = await book.list_receipts(before=_FAR_S, limit=limit, offset=0)
    rows = [
        (
            stored.request_id or "unknown",
            format_time(stored.signed.receipt.finished_at),
            stored.signed.receipt.provider,
            stored.signed.receipt.usage.input_tokens + stored.signed.receipt.usage.cached_tokens,
            stored.signed.receipt.usage.output_tokens,
            units.format_number(stored.signed.receipt.fee),
            stored.signed.receipt.finish_reason.name.lower(),
            stored.verification.value,
        )
        for stored in found
    ]
    columns = (
        "request",
        "finished",
        "provider",
        "in>",
        "out>",
        f"fee, {units.symbol}>",
        "end",
        "answer",
    )
    output.show(
        {"receipts": [_to_document(stored) for stored in found]},
        lambda: output.table(columns, rows) if rows else "No receipts yet.",
    )


@receipts.command_of(
    "export",
    short_help="Print one receipt as a file that anyone can check.",
    examples=(
        ("The newest", "hanse receipts export > receipt.json"),
        ("By its request id", "hanse receipts export 0x5f0c... > receipt.json"),
    ),
)
@click.argument("request_id", required=False, metavar="[REQUEST]")
@click.option("--key", default="user", help="Whose receipts: a key of this home.")
@pass_session
async def export(session: Session, /, request_id: str | None, key: str) -> None:
    """Print voucher, offer and receipt of one REQUEST (the newest by default) as JSON.

    Prompt and answer are not in it, only their hashes.
    """
    _, document, _ = await _export(session, key, request_id)
    session.output.show(document, lambda: json.dumps(document, indent=2))


@receipts.command_of(
    "prove",
    short_help="Print one receipt with the proof that it is recorded.",
    examples=(
        ("The newest", "hanse receipts prove > record.json"),
        (
            "By its request id, as soon as it is recorded",
            "hanse receipts prove 0x5f0c... --wait 60",
        ),
        ("Check it, offline and on the chain", "hanse receipts verify record.json --chain"),
    ),
)
@click.argument("request_id", required=False, metavar="[REQUEST]")
@click.option("--key", default="user", help="Whose receipts: a key of this home.")
@click.option(
    "--wait", "wait_s", type=click.FloatRange(0), default=0.0, help="Seconds to wait for a root."
)
@pass_session
async def prove(session: Session, /, request_id: str | None, key: str, wait_s: float) -> None:
    """Print the receipt of one REQUEST (the newest by default) and its inclusion proof as JSON.

    The proof comes from this home's books, where it was held against the chain, or else from a
    recorder of network.json.
    """
    from hanse.cli.recording import proofs

    signed, document, domain = await _export(session, key, request_id)
    with session.output.wait("looking for its proof ..."):
        record = await proofs.prove(session, key, signed, document, domain, wait_s)
    session.output.show(record, lambda: json.dumps(record, indent=2))


@receipts.command_of(
    "verify",
    short_help="Check an exported receipt or record, offline.",
    examples=(
        ("A file", "hanse receipts verify receipt.json"),
        ("From a pipe", "hanse receipts export | hanse receipts verify -"),
        ("A record, and that the chain has its root", "hanse receipts verify record.json --chain"),
        ("By another node", "hanse receipts verify record.json --rpc http://127.0.0.1:8545"),
    ),
)
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--chain", is_flag=True, help="Also look the root up, at this home's node.")
@click.option("--rpc", "rpc_url", metavar="URL", help="The same, at this node of the file's chain.")
@pass_session
async def verify(session: Session, /, file: Path, chain: bool, rpc_url: str | None) -> None:
    """Check the FILE of an exported receipt or record; needs no database, key or network.

    It proves who bought what at which price, and who signed for having served it; a record also
    that the receipt is in a root, and the root in its recorder's chain of heads. With --chain or
    --rpc that the root is on the chain. That the signing key was the provider's is for the Registry
    to say: compare the key that is shown. Exit code 8 if anything does not fit.
    """
    from hanse.cli.recording.descriptions import describe_receipt, to_document
    from hanse.sdk import record_file
    from hanse.sdk.receipt_file import verify_receipt_document

    content = (
        sys.stdin.buffer.read(record_file.FILE_BYTES_MAX + 1)
        if str(file) == "-"
        else record_file.read_document(file)
    )
    if not record_file.is_record_document(content):
        found = verify_receipt_document(content)
        if chain or rpc_url:
            raise RequestError("usage", "a receipt file has no root: make one with receipts prove")
        session.output.show(
            to_document(found), lambda: session.output.fields(describe_receipt(session, found))
        )
        return
    record = record_file.verify_record_document(content)
    compared = ""
    if chain or rpc_url:
        from hanse.cli.recording.proofs import verify_with_chain

        with session.output.wait("looking the root up on the chain ..."):
            compared = await verify_with_chain(session, record, rpc_url)
    commit = record.proof.commit
    session.output.show(
        {
            **to_document(record.receipt),
            "recorder": record.proof.recorder,
            "number": str(commit.number),
            "root": commit.root,
            "head": commit.head,
            "on_chain": bool(compared),
        },
        lambda: session.output.fields(
            (
                *describe_receipt(session, record.receipt),
                ("recorded by", record.proof.recorder),
                ("root", f"{commit.root}, commit {commit.number} over {commit.count} receipts"),
                ("head", commit.head),
                ("on the chain", compared or "not looked up; --chain does"),
            )
        ),
    )


_FAR_S = 2**40
"""Later than any receipt."""


async def _export(
    session: Session, key: str, request_id: str | None
) -> "tuple[SignedReceipt, dict[str, Any], Domain]":
    """A receipt, its file's document, and the domain of its signatures."""
    from hanse.cli.network import load_network
    from hanse.protocol.eip712 import Domain
    from hanse.protocol.signatures import parse_hash32
    from hanse.sdk.receipt_file import export_receipt

    deployment = load_network(session.home).deployment
    async with _open_book(session, key) as book:
        wanted = parse_hash32(request_id, "request") if request_id else None
        if wanted is None:
            newest = await book.list_receipts(before=_FAR_S, limit=1, offset=0)
            wanted = newest[0].request_id if newest else None
        voucher = await book.find_voucher(wanted) if wanted else None
        receipt = await book.find_receipt(wanted) if wanted else None
    if voucher is None or receipt is None:
        name = f"for request {wanted}" if wanted else "yet"
        raise RequestError("not_found", f"there is no receipt {name} in {session.home}")
    domain = Domain(deployment.chain_id, deployment.escrow)
    return receipt.signed, export_receipt(domain, voucher, receipt), domain


def _open_book(session: Session, key: str) -> Any:
    from contextlib import asynccontextmanager

    from hanse.cli.buying.wallet import get_database_path
    from hanse.cli.network import load_network
    from hanse.protocol.eip712 import Domain
    from hanse.settlement.books.voucher_book import open_voucher_book
    from hanse.store import open_database

    deployment = load_network(session.home).deployment

    @asynccontextmanager
    async def opened() -> Any:
        database = await open_database(get_database_path(session, key))
        try:
            domain = Domain(deployment.chain_id, deployment.escrow)
            yield await open_voucher_book(database, domain)
        finally:
            await database.close()

    return opened()


def _to_document(stored: "StoredReceipt") -> dict[str, Any]:
    from hanse.protocol.wire import receipt_to_json

    return {
        "request_id": stored.request_id,
        "verification": stored.verification.value,
        "reason": stored.reason,
        "received_at": stored.received_at,
        "receipt": receipt_to_json(stored.signed),
    }
