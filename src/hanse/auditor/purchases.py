"""One purchase audited: from its answer, receipt and opening to a file of evidence.

    purchase = make_purchase(trace, voucher, receipt, opening, domain)
    find_overbilled(purchase, signer)                         None, or a file that takes no model
    found, data = audit_purchase(purchase, model, calibration, signer, cache_dir, withhold=False)

The user's trace has body and answer, its book has voucher, offer and receipt, the broker has the
opening (`openings`). Whoever keeps no traces has nothing to audit: hashes alone cannot be run
through a model.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from hanse.auditor.model_types import UNKNOWN, can_audit, to_type
from hanse.auditor.opened_model import OpenedModel
from hanse.protocol.commitments.tree import Entry
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import RequestError
from hanse.protocol.signatures import DigestSigner, Hash32
from hanse.sdk.receipt_file import export_receipt, verify_receipt_document
from hanse.settlement.books.voucher_book import VoucherBook
from hanse.settlement.books.voucher_records import StoredReceipt, StoredVoucher
from hanse.settlement.traces.document import Trace
from hanse.verification.audits.answers import Audited, Bought, audit_answer, open_commitment
from hanse.verification.audits.calibration import Calibration
from hanse.verification.audits.measuring import Measured
from hanse.verification.evidence.breaches import make_breach
from hanse.verification.evidence.files import encode_evidence
from hanse.verification.evidence.statement import Content, Statement, sign_statement


@dataclass(frozen=True)
class Purchase:
    """What is to be audited, checked against what was signed.

    Attributes:
        bought: the answer.
        opening: of its commitment.
        document: its receipt file.
        domain: of all signatures.
    """

    bought: Bought
    opening: bytes
    document: dict[str, Any]
    domain: Domain


async def find_uncommitted(
    book: VoucherBook, name: Hash32, domain: Domain, signer: DigestSigner
) -> bytes | None:
    """The file of a bill without the promised commitment; None if this request's has one.

    Needs neither trace nor model nor broker: the book has all that was signed.

    Args:
        book: the user's.
        name: request id.
        domain: of all signatures.
        signer: who hands it out.
    """
    voucher = await book.find_voucher(name)
    receipt = await book.find_receipt(name)
    if voucher is None or receipt is None:
        return None
    return show_breach(export_receipt(domain, voucher, receipt), signer)


def find_overbilled(purchase: Purchase, signer: DigestSigner) -> bytes | None:
    """The file of a bill above its commitment; None if there is no such.

    Raises:
        VerificationError: the opening is another receipt's.
        RequestError: there is no commitment.
    """
    entries = open_commitment(purchase.bought, purchase.opening)
    return show_breach(purchase.document, signer, entries)


def show_breach(
    document: dict[str, Any], signer: DigestSigner, entries: Sequence[Entry] = ()
) -> bytes | None:
    """The file of a receipt that breaks its offer's promise, handed out by `signer`."""
    receipt = verify_receipt_document(msgspec.json.encode(document))
    return make_breach(document, receipt, signer, int(time.time()), entries)


def make_purchase(
    trace: Trace, voucher: StoredVoucher, receipt: StoredReceipt, opening: bytes, domain: Domain
) -> Purchase:
    """Put together what a checked trace, the book and the broker say of one request."""
    bought = Bought(
        voucher.offer.offer, trace.request, receipt.signed, trace.path, trace.body, trace.response
    )
    return Purchase(bought, opening, export_receipt(domain, voucher, receipt), domain)


def audit_purchase(
    purchase: Purchase,
    model: OpenedModel,
    calibration: Calibration,
    signer: DigestSigner,
    cache_dir: Path,
    *,
    withhold: bool,
) -> tuple[Audited, bytes]:
    """Run and judge it; returns what was found and the signed file.

    Raises:
        VerificationError: the opening is another receipt's.
        RequestError: there is no commitment, or the model is not the one to audit with.
    """
    bought = purchase.bought
    entries = open_commitment(bought, purchase.opening)
    described = model.describe(bought.offer.manifest_root, cache_dir)
    if described.provider and described.provider != bought.offer.provider:
        raise RequestError(
            "unprocessable",
            f"this copy is {described.provider}'s, the answer was served by "
            f"{bought.offer.provider}: audit it with that provider's copy",
        )
    if described.manifest_root != bought.offer.manifest_root:
        raise RequestError(
            "unprocessable",
            f"this copy is of {described.manifest_root}, offered was {bought.offer.manifest_root}",
        )
    verify_types(bought.offer.quantisation, model, calibration)
    found = audit_answer(bought, entries, model.auditor, calibration)
    content = Content(
        bought.path, bought.body, bought.response, purchase.opening, found.alignment.prompt_tokens
    )
    statement = Statement(
        signer.address,
        int(time.time()),
        f"hanse {version('hanse')}",
        described,
        content.get_hash(),
        found.alignment.count,
        found.alignment.reasons,
        found.measured or Measured(model.auditor.prefill.runtime, (), (), ()),
        calibration,
        found.judgement,
    )
    signature = sign_statement(statement, bought.receipt, purchase.domain, signer)
    data = encode_evidence(purchase.document, statement, signature, None if withhold else content)
    return found, data


def verify_types(offered: str, model: OpenedModel, calibration: Calibration) -> None:
    """Refuse a copy or thresholds by which an honest answer would look like a cheat's.

    Raises:
        RequestError: `unprocessable`.
    """
    own = model.copy.quantisation if model.copy else UNKNOWN
    if not model.is_keyed and not can_audit(own, offered):
        raise RequestError(
            "unprocessable",
            f"this copy is of type {own}, offered was {offered}: audit with the provider's copy of "
            "that type",
        )
    served = calibration.conditions.quantisation
    if UNKNOWN not in (to_type(served), to_type(offered)) and to_type(served) != to_type(offered):
        raise RequestError(
            "unprocessable",
            f"this calibration is of answers by {served}, offered was {offered}: calibrate for it",
        )
