"""`hanse receipts`: list, export and verify what providers signed."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hanse.cli.framework import group, pass_session
from hanse.cli.moments import format_time
from hanse.cli.session import Session
from hanse.protocol.errors import HanseError, RequestError

if TYPE_CHECKING:
    from hanse.sdk.evidence import VerifiedReceipt
    from hanse.settlement.books.voucher_records import StoredReceipt


@group(
    "receipts",
    short_help="List, export and verify receipts.",
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
    the answer never came; "mismatched" that they differ, which is evidence against the provider.
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
    from hanse.cli.network import load_network
    from hanse.protocol.eip712 import Domain
    from hanse.protocol.signatures import parse_hash32
    from hanse.sdk.evidence import export_receipt

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
    document = export_receipt(Domain(deployment.chain_id, deployment.escrow), voucher, receipt)
    session.output.show(document, lambda: json.dumps(document, indent=2))


@receipts.command_of(
    "verify",
    short_help="Check an exported receipt, offline.",
    examples=(
        ("A file", "hanse receipts verify receipt.json"),
        ("From a pipe", "hanse receipts export | hanse receipts verify -"),
    ),
)
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@pass_session
def verify(session: Session, /, file: Path) -> None:
    """Check the FILE of an exported receipt; needs no chain, database, network or key.

    It proves who bought what at which price, and who signed for having served it. That the signing
    key was the provider's is for the Registry to say: compare the key that is shown. Exit code 8 if
    anything does not fit.
    """
    from hanse.sdk.evidence import FILE_BYTES_MAX, verify_receipt_document, verify_receipt_file

    if str(file) == "-":
        found = verify_receipt_document(sys.stdin.buffer.read(FILE_BYTES_MAX + 1))
    else:
        found = verify_receipt_file(file)
    receipt, request = found.receipt.receipt, found.voucher.request
    fee = _format_fee(session, found)
    session.output.show(
        _verified_to_document(found),
        lambda: session.output.fields(
            (
                ("verified", "every signature, hash and price fits"),
                ("user", f"{receipt.user}, by signer {receipt.signer}"),
                ("provider", receipt.provider),
                ("receipt key", f"{found.receipt_key} (compare with the Registry)"),
                ("request", request.request_id),
                ("model", f"{found.offer.model} ({found.offer.quantisation})"),
                (
                    "tokens",
                    f"{receipt.usage.input_tokens + receipt.usage.cached_tokens} in, "
                    f"{receipt.usage.output_tokens} out",
                ),
                ("fee", fee),
                (
                    "ended",
                    f"{receipt.finish_reason.name.lower()}, {format_time(receipt.finished_at)}",
                ),
                ("hash of the request", request.body_hash),
                ("hash of the answer", receipt.response_hash),
                ("contracts", f"chain {found.domain.chain_id}, Escrow {found.domain.escrow}"),
            )
        ),
    )


_FAR_S = 2**40
"""Later than any receipt."""


def _open_book(session: Session, key: str) -> Any:
    from contextlib import asynccontextmanager

    from hanse.cli.buying.wallet import get_database_path
    from hanse.cli.network import load_network
    from hanse.protocol.eip712 import Domain
    from hanse.settlement.books.voucher_book import open_voucher_book
    from hanse.store import open_sqlite

    deployment = load_network(session.home).deployment

    @asynccontextmanager
    async def opened() -> Any:
        database = await open_sqlite(get_database_path(session, key))
        try:
            domain = Domain(deployment.chain_id, deployment.escrow)
            yield await open_voucher_book(database, domain)
        finally:
            await database.close()

    return opened()


def _format_fee(session: Session, found: "VerifiedReceipt") -> str:
    """In the asset's units if this home knows that market, else in base units."""
    from hanse.cli.network import load_network

    fee = found.receipt.receipt.fee
    try:
        network = load_network(session.home)
    except HanseError:
        return f"{fee} base units"
    ours = (network.deployment.chain_id, network.deployment.escrow)
    if ours != (found.domain.chain_id, found.domain.escrow):
        return f"{fee} base units"
    return network.units.format(fee)


def _to_document(stored: "StoredReceipt") -> dict[str, Any]:
    from hanse.protocol.wire import receipt_to_json

    return {
        "request_id": stored.request_id,
        "verification": stored.verification.value,
        "reason": stored.reason,
        "received_at": stored.received_at,
        "receipt": receipt_to_json(stored.signed),
    }


def _verified_to_document(found: "VerifiedReceipt") -> dict[str, Any]:
    from hanse.protocol.wire import receipt_to_json

    return {
        "verified": True,
        "receipt_key": found.receipt_key,
        "chain_id": found.domain.chain_id,
        "escrow": found.domain.escrow,
        "model": found.offer.model,
        "request_id": found.voucher.request.request_id,
        "body_hash": found.voucher.request.body_hash,
        "maximum_fee": str(found.voucher.request.maximum_fee),
        "receipt": receipt_to_json(found.receipt),
    }
