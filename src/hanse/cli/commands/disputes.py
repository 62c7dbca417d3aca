"""`hanse disputes`: what providers cheated in, the evidence, and bringing it to the chain."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hanse.cli.framework import group, pass_session
from hanse.cli.moments import format_time
from hanse.cli.panels.commands import add_panel_commands
from hanse.cli.session import Session
from hanse.protocol.errors import RequestError

if TYPE_CHECKING:
    from hanse.cli.buying.wallet import Wallet
    from hanse.cli.network import Network
    from hanse.settlement.disputes.dispute_book import DisputeBook, StoredDispute
    from hanse.settlement.disputes.evidence import Evidence


@group(
    "disputes",
    short_help="Show and prove what providers cheated in.",
    examples=(
        ("What was found, and what became of it", "hanse disputes list"),
        ("The newest, in words", "hanse disputes show"),
        ("Its evidence, as a file that anyone can check", "hanse disputes export > dispute.json"),
        ("Bring it to the chain", "hanse disputes prove dispute.json"),
    ),
)
def disputes() -> None:
    """Show what providers were caught in, and prove it on the chain.

    A gateway looks for cheats and raises disputes by itself, as far as the key that it sends with
    has native coin. These commands show what it found, and let anyone send a proof instead. What
    receipts cannot prove, such as another model, a panel of staked auditors judges.
    """


add_panel_commands(disputes)


@disputes.command_of(
    "list",
    short_help="List disputes, newest first.",
    examples=(
        ("All of them", "hanse disputes list"),
        ("Those that still wait", "hanse disputes list --json | jq '.disputes[].reason'"),
    ),
)
@click.option("--key", default="user", help="Whose disputes: a key of this home.")
@pass_session
async def list_disputes(session: Session, /, key: str) -> None:
    """List what this home's books hold; needs neither network nor password.

    "found" waits to be sent, "sent" is on its way, "confirmed" was accepted and paid what it says,
    "refused" was not accepted so far; the reason stands beside it.
    """
    from hanse.cli.network import load_network

    output, units = session.output, load_network(session.home).units
    async with _open_book(session, key) as book:
        found = await book.list_all()
    rows = [
        (
            dispute.dispute_id[:12],
            format_time(dispute.found_at),
            dispute.evidence.finding.kind.value,
            dispute.evidence.finding.provider,
            units.format_number(dispute.evidence.finding.loss),
            units.format_number(dispute.compensation),
            dispute.state.value,
            dispute.reason,
        )
        for dispute in found
    ]
    columns = ("dispute", "found", "what", "provider", "loss>", f"paid back, {units.symbol}>")
    output.show(
        {"disputes": [_to_document(dispute) for dispute in found]},
        lambda: (
            output.table((*columns, "state", "why"), rows) if rows else "No provider was caught."
        ),
    )


@disputes.command_of(
    "show",
    short_help="Show one dispute with what proves it.",
    examples=(("The newest", "hanse disputes show"), ("By its id", "hanse disputes show 0x5f0c")),
)
@click.argument("dispute", required=False, metavar="[DISPUTE]")
@click.option("--key", default="user", help="Whose disputes: a key of this home.")
@pass_session
async def show(session: Session, /, dispute: str | None, key: str) -> None:
    """Show one DISPUTE (the newest by default) in words."""
    from hanse.cli.network import load_network
    from hanse.sdk.disputes import describe

    units = load_network(session.home).units
    async with _open_book(session, key) as book:
        found = await _get(book, dispute)
    finding = found.evidence.finding
    session.output.show(
        _to_document(found),
        lambda: session.output.fields(
            (
                ("dispute", found.dispute_id),
                ("provider", finding.provider),
                ("what it did", describe(finding)),
                ("loss", units.format(finding.loss)),
                ("state", found.state.value),
                ("why", found.reason or "-"),
                ("paid back", units.format(found.compensation)),
                ("transaction", found.transaction_hash or "-"),
                ("found", format_time(found.found_at)),
                ("signed by", ", ".join(found.evidence.receipt_keys)),
            )
        ),
    )


@disputes.command_of(
    "export",
    short_help="Print a dispute's evidence as a file that anyone can check.",
    examples=(
        ("The newest", "hanse disputes export > dispute.json"),
        ("Check it, offline and against the chain", "hanse disputes prove dispute.json --dry-run"),
    ),
)
@click.argument("dispute", required=False, metavar="[DISPUTE]")
@click.option("--key", default="user", help="Whose disputes: a key of this home.")
@pass_session
async def export(session: Session, /, dispute: str | None, key: str) -> None:
    """Print the receipts that prove one DISPUTE (the newest by default) as JSON.

    There is no key, prompt or answer in it. Whoever sends it gains nothing: the victim is paid.
    """
    from hanse.settlement.disputes.evidence import evidence_to_document

    async with _open_book(session, key) as book:
        found = await _get(book, dispute)
    document = evidence_to_document(found.evidence.domain, found.evidence.finding)
    session.output.show(document, lambda: json.dumps(document, indent=2))


@disputes.command_of(
    "prove",
    short_help="Prove a dispute's file on the chain.",
    examples=(
        ("Would it be accepted", "hanse disputes prove dispute.json --dry-run"),
        ("Send it", "hanse disputes prove dispute.json"),
        ("Send it with another key's native coin", "hanse disputes prove dispute.json --key other"),
        ("The newest of this home", "hanse disputes export | hanse disputes prove -"),
    ),
)
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--key", default="user", help="Who sends it: a key of this home with native coin.")
@click.option("--dry-run", is_flag=True, help="Check it and ask Escrow; needs no password.")
@click.option("--keyring", is_flag=True, help="Take the password from the desktop's keyring.")
@pass_session
async def prove(session: Session, /, file: Path, key: str, dry_run: bool, keyring: bool) -> None:
    """Check the FILE of an exported dispute, and prove it on the chain.

    Anyone may: the provider's stake pays the victim whose receipts they are. A proof that Escrow
    would refuse is not sent. Exit code 8 if the file proves nothing, 7 if Escrow refuses it.
    """
    from hanse.cli.buying.wallet import open_wallet
    from hanse.cli.network import load_network
    from hanse.sdk.disputes import build_proof
    from hanse.sdk.disputes import prove as send

    evidence, network = _read(file), load_network(session.home)
    _verify_domain(evidence, network)
    if dry_run:
        async with open_wallet(session, network, key) as wallet:
            head = await wallet.rpc.fetch_head()
            call = build_proof(wallet.account.escrow, evidence)
            would_pay = await wallet.rpc.call(call, block=head.number, sender=wallet.user)
        _show_proof(session, network, evidence, int.from_bytes(would_pay, "big"), "")
        return
    wallet_of = open_wallet(session, network, key, can_send=True, use_keyring=keyring)
    async with wallet_of as wallet:
        outbox = wallet.account.outbox
        assert outbox is not None  # it can send
        with session.output.wait("proving it, until the transaction is confirmed ..."):
            entry = await send(outbox, wallet.account.escrow, evidence)
        paid = await _fetch_compensation(wallet, entry.transaction_hash)
    _show_proof(session, network, evidence, paid, entry.transaction_hash)


@asynccontextmanager
async def _open_book(session: Session, key: str) -> "AsyncIterator[DisputeBook]":
    from hanse.cli.buying.wallet import get_database_path
    from hanse.cli.network import load_network
    from hanse.protocol.eip712 import Domain
    from hanse.settlement.disputes.dispute_book import open_dispute_book
    from hanse.store import open_database

    deployment = load_network(session.home).deployment
    database = await open_database(get_database_path(session, key))
    try:
        yield await open_dispute_book(database, Domain(deployment.chain_id, deployment.escrow))
    finally:
        await database.close()


async def _fetch_compensation(wallet: "Wallet", transaction_hash: str) -> int:
    """What a confirmed proof paid the victim."""
    receipt = await wallet.rpc.fetch_receipt(transaction_hash)
    contract = wallet.account.escrow.contract
    logs = receipt.logs if receipt else ()
    events = [contract.find_event(log, 0) for log in logs if log.address == contract.address]
    return sum(event.fields.get("compensation", 0) for event in events if event)


async def _get(book: "DisputeBook", wanted: str | None) -> "StoredDispute":
    found = await book.list_all()
    matching = [d for d in found if wanted is None or d.dispute_id.startswith(wanted.lower())]
    if not matching:
        which = f"none of {len(found)} disputes begins with {wanted!r:.80}"
        raise RequestError("not_found", which if found else "no provider was caught")
    if wanted is not None and len(matching) > 1:
        raise RequestError("usage", f"{len(matching)} disputes begin with {wanted!r:.80}: say more")
    return matching[0]


def _read(file: Path) -> "Evidence":
    from hanse.settlement.disputes import evidence

    if str(file) == "-":
        content = sys.stdin.buffer.read(evidence.FILE_BYTES_MAX + 1)
        return evidence.verify_evidence_document(content)
    return evidence.verify_evidence_file(file)


def _verify_domain(evidence: "Evidence", network: "Network") -> None:
    deployment = network.deployment
    ours, theirs = (deployment.chain_id, deployment.escrow), evidence.domain
    if (theirs.chain_id, theirs.escrow) != ours:
        raise RequestError(
            "configuration_invalid",
            f"the dispute is for chain {theirs.chain_id}, Escrow {theirs.escrow}; this home's "
            f"network is chain {ours[0]}, Escrow {ours[1]}",
        )


def _show_proof(
    session: Session, network: "Network", evidence: "Evidence", paid: int, transaction: str
) -> None:
    from hanse.sdk.disputes import describe

    finding, units = evidence.finding, network.units
    receipt = finding.receipts[0].receipt
    session.output.show(
        {
            "dispute_id": evidence.dispute_id,
            "kind": finding.kind.value,
            "provider": finding.provider,
            "user": receipt.user,
            "accepted": True,
            "sent": bool(transaction),
            "compensation": str(paid),
            "transaction_hash": transaction,
        },
        lambda: session.output.fields(
            (
                ("provider", finding.provider),
                ("what it did", describe(finding)),
                ("Escrow", "accepted it" if transaction else "would accept it"),
                ("paid back", f"{units.format(paid)} to the account of {receipt.user}"),
                ("transaction", transaction or "none was sent"),
            )
        ),
    )


def _to_document(dispute: "StoredDispute") -> dict[str, Any]:
    from hanse.sdk.disputes import describe

    finding = dispute.evidence.finding
    receipt = finding.receipts[0].receipt
    return {
        "dispute_id": dispute.dispute_id,
        "kind": finding.kind.value,
        "user": receipt.user,
        "provider": receipt.provider,
        "signer": receipt.signer,
        "sequence": str(receipt.sequence),
        "words": describe(finding),
        "loss": str(finding.loss),
        "state": dispute.state.value,
        "reason": dispute.reason,
        "compensation": str(dispute.compensation),
        "transaction_hash": dispute.transaction_hash,
        "found_at": dispute.found_at,
    }
