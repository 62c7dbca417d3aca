"""Bringing a challenge: its receipt, its evidence's hash, its sealed answer kept beforehand."""

from pathlib import Path

import msgspec

from hanse.chain import OutboxEntry
from hanse.cli.panels.court import Court, open_court
from hanse.cli.panels.judging import show_after
from hanse.cli.panels.sealed import find_sealed, get_path, make_sealed, save_sealed
from hanse.cli.panels.showing import VERDICTS
from hanse.cli.session import Session
from hanse.protocol.errors import RequestError
from hanse.protocol.ledger.panels.sealing import Verdict, name_challenge, seal_answer
from hanse.protocol.nesting import is_nested_too_deep
from hanse.protocol.signatures import Hash32, to_hex
from hanse.sdk.receipt_file import VerifiedReceipt, verify_receipt_document, verify_receipt_file
from hanse.store.files import read_file
from hanse.verification.evidence.files import FILE_BYTES_MAX, get_evidence_hash

URI_BYTES_MAX = 256
"""The contract's."""


async def accuse(
    session: Session,
    file: Path,
    receipt_file: Path | None,
    uri: str,
    known_answer: str | None,
    key: str,
    keyring: bool,
) -> None:
    """Check the receipt, seal the answer, keep it, and send the challenge."""
    content = read_evidence(file)
    receipt = verify_receipt_file(receipt_file) if receipt_file else find_receipt(content)
    if len(uri.encode()) > URI_BYTES_MAX:
        raise RequestError("usage", f"the URI has {len(uri.encode())} bytes, at most 256")
    answer = VERDICTS[known_answer] if known_answer else Verdict.NONE
    async with open_court(session, key, can_send=True, use_keyring=keyring) as court:
        with session.output.wait("challenging, until the transaction is confirmed ..."):
            name, entry = await bring(session, court, content, receipt, uri, answer)
        await show_after(session, court, entry, name)


async def bring(
    session: Session,
    court: Court,
    content: bytes,
    receipt: VerifiedReceipt,
    uri: str,
    answer: Verdict = Verdict.NONE,
) -> tuple[Hash32, OutboxEntry]:
    """Challenge by this evidence against this receipt; its sealed answer is kept beforehand.

    Returns:
        The challenge's name, and its transaction.

    Raises:
        RequestError: the receipt is of another market.
        ChainError: the contract refuses it.
    """
    _verify_domain(court, receipt)
    evidence_hash = get_evidence_hash(content)
    name = name_challenge(get_receipt_hash(receipt), court.address, evidence_hash)
    path = get_path(session.home, name, court.address, "answer")
    sealed = find_sealed(path)
    if sealed is None or sealed.verdict != answer:
        sealed = make_sealed(answer)
        save_sealed(path, sealed)
    call = court.disputes.challenge(
        receipt.receipt, evidence_hash, uri, seal_answer(court.address, answer, sealed.salt)
    )
    terms = court.terms
    return name, await court.send(call, pays=terms.bond + terms.seats * terms.seat_fee)


def get_receipt_hash(receipt: VerifiedReceipt) -> Hash32:
    """What a challenge names a receipt by."""
    return to_hex(receipt.domain.digest(receipt.receipt.receipt.struct_hash()))


def read_evidence(file: Path) -> bytes:
    """An evidence file's bytes, within the limit."""
    content = read_file(file, FILE_BYTES_MAX)
    if len(content) > FILE_BYTES_MAX:
        raise RequestError("usage", f"{file} has more than {FILE_BYTES_MAX} bytes")
    return content


def hash_evidence(content: bytes) -> Hash32:
    """What names an evidence file on the chain."""
    return get_evidence_hash(content)


def find_receipt(content: bytes) -> VerifiedReceipt:
    """The receipt file inside an evidence file, checked."""
    try:
        inside = None if is_nested_too_deep(content) else msgspec.json.decode(content)["receipt"]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError):
        inside = None
    if inside is None:
        raise RequestError(
            "usage", "there is no receipt inside this file: name the receipt's with --receipt"
        ) from None
    return verify_receipt_document(msgspec.json.encode(inside))


def _verify_domain(court: Court, receipt: VerifiedReceipt) -> None:
    deployment = court.network.deployment
    if (receipt.domain.chain_id, receipt.domain.escrow) != (
        deployment.chain_id,
        deployment.escrow,
    ):
        raise RequestError(
            "configuration_invalid",
            f"the receipt is for chain {receipt.domain.chain_id}, Escrow {receipt.domain.escrow};"
            f" this home's network is chain {deployment.chain_id}, Escrow {deployment.escrow}",
        )
