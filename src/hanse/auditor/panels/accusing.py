"""Bringing a challenge: its receipt, its evidence's hash, its sealed answer kept beforehand."""

from pathlib import Path

import msgspec

from hanse.auditor.panels.court import Court
from hanse.auditor.panels.sealed import find_sealed, get_path, make_sealed, save_sealed
from hanse.chain import OutboxEntry
from hanse.protocol.errors import RequestError
from hanse.protocol.ledger.panels.sealing import Verdict, name_challenge, seal_answer
from hanse.protocol.nesting import is_nested_too_deep
from hanse.protocol.signatures import Hash32, to_hex
from hanse.sdk.receipt_file import VerifiedReceipt, verify_receipt_document
from hanse.verification.evidence.files import get_evidence_hash


async def bring(
    home: Path,
    court: Court,
    content: bytes,
    receipt: VerifiedReceipt,
    uri: str,
    answer: Verdict = Verdict.NONE,
) -> tuple[Hash32, OutboxEntry]:
    """Challenge by this evidence against this receipt; its sealed answer is kept beforehand.

    Args:
        home: folder of the challenger; the sealed answer is kept in HOME/panels.
        court: opened to send.
        content: the evidence.
        receipt: of the accused.
        uri: where auditors find the evidence; empty for nowhere.
        answer: the right verdict, of a case that is planted.

    Returns:
        The challenge's name, and its transaction.

    Raises:
        RequestError: the receipt is of another market.
        ChainError: the contract refuses it.
    """
    _verify_domain(court, receipt)
    evidence_hash = get_evidence_hash(content)
    name = name_challenge(get_receipt_hash(receipt), court.address, evidence_hash)
    path = get_path(home, name, court.address, "answer")
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
    deployment = court.deployment
    if (receipt.domain.chain_id, receipt.domain.escrow) != (
        deployment.chain_id,
        deployment.escrow,
    ):
        raise RequestError(
            "configuration_invalid",
            f"the receipt is for chain {receipt.domain.chain_id}, Escrow {receipt.domain.escrow};"
            f" this home's network is chain {deployment.chain_id}, Escrow {deployment.escrow}",
        )
