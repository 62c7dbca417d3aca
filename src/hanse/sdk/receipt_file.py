"""A receipt as a file that anyone can check, years later, without chain, database or network.

    hanse.export_receipt(request_id)  ->  the document (docs/receipt-file.md)
    verify_receipt_file(path)         ->  VerifiedReceipt, or VerificationError

The file proves: this signer bought this request at this offer's price, and this receipt key served
it for this fee. What it cannot prove by itself is that the key was the provider's at the time: for
that the Registry's events are asked (`ReceiptKeyChanged`, `Registered`), with the key in the file.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from hanse.protocol.eip712 import Domain
from hanse.protocol.messages import Offer, Request, SignedReceipt, SignedVoucher, Voucher
from hanse.protocol.signatures import (
    Address,
    parse_address,
    parse_hash32,
    recover_signer,
)
from hanse.protocol.verify import verify_receipt, verify_receipt_signature
from hanse.protocol.wire import offer_from_json, offer_to_json, receipt_from_json, receipt_to_json
from hanse.protocol.wire.files import FileForm
from hanse.settlement.books.voucher_records import StoredReceipt, StoredVoucher
from hanse.store.files import read_file

FORMAT = "hanse-receipt-1"

FILE_BYTES_MAX = 65_536
"""A receipt file has about 4 kB."""


@dataclass(frozen=True)
class VerifiedReceipt:
    """What a receipt file proves.

    `receipt_key` is the key that signed offer and receipt; whether it was the provider's is the
    Registry's to say.
    """

    receipt: SignedReceipt
    voucher: SignedVoucher
    offer: Offer
    domain: Domain
    receipt_key: Address


class _Voucher(msgspec.Struct, forbid_unknown_fields=True):
    user: str
    provider: str
    signer: str
    cumulative_max: int
    sequence_max: int
    offer_hash: str
    body_hash: str
    maximum_fee: int
    request_id: str
    deadline: int
    signature: str


class _Domain(msgspec.Struct, forbid_unknown_fields=True):
    chain_id: int
    escrow: str


class _File(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    domain: _Domain
    receipt_key: str
    voucher: _Voucher
    offer: dict[str, Any]
    receipt: dict[str, Any]


FORM = FileForm(
    FORMAT,
    _File,
    FILE_BYTES_MAX,
    "receipt_invalid",
    "this receipt file does not hold",
    is_strict=False,
)


def export_receipt(
    domain: Domain, voucher: StoredVoucher, receipt: StoredReceipt
) -> dict[str, Any]:
    """The document of one request, JSON-ready."""
    signed, request = voucher.signed, voucher.signed.request
    return {
        "format": FORMAT,
        "domain": {"chain_id": domain.chain_id, "escrow": domain.escrow},
        "receipt_key": voucher.receipt_key,
        "voucher": {
            "user": signed.voucher.user,
            "provider": signed.voucher.provider,
            "signer": signed.signer,
            "cumulative_max": str(signed.voucher.cumulative_max),
            "sequence_max": str(signed.voucher.sequence_max),
            "offer_hash": request.offer_hash,
            "body_hash": request.body_hash,
            "maximum_fee": str(request.maximum_fee),
            "request_id": request.request_id,
            "deadline": request.deadline,
            "signature": signed.signature,
        },
        "offer": offer_to_json(voucher.offer),
        "receipt": receipt_to_json(receipt.signed),
    }


def verify_receipt_file(path: Path) -> VerifiedReceipt:
    """Check an exported receipt.

    Raises:
        RequestError: `not_found` if there is no such file.
        VerificationError: naming what does not fit.
    """
    return verify_receipt_document(read_file(path, FILE_BYTES_MAX))


def verify_receipt_document(content: bytes) -> VerifiedReceipt:
    """Check the JSON of an exported receipt; pure.

    1. The offer is signed by the receipt key, and its hash is the one that was bought.
    2. The voucher is signed by its signer, for this provider and this request.
    3. The receipt is signed by the receipt key, answers this request, and its fee is within price
       and maximum.

    The caller still owes: that the receipt key was the provider's, from the Registry.

    Raises:
        VerificationError: naming what does not fit.
    """
    file = FORM.decode(content)
    with FORM.reading():
        domain = Domain(file.domain.chain_id, parse_address(file.domain.escrow, "escrow"))
        receipt_key = parse_address(file.receipt_key, "receipt_key")
        voucher = _to_voucher(file.voucher)
        signed_offer = offer_from_json(file.offer)
        receipt = receipt_from_json(file.receipt)
        offer_hash = "0x" + signed_offer.offer.struct_hash().hex()
        _verify_equal("the offer's hash", offer_hash, voucher.request.offer_hash)
        offer_digest = domain.digest(signed_offer.offer.struct_hash())
        offer_signer = recover_signer(offer_digest, signed_offer.signature)
        _verify_equal("the offer's signer", offer_signer, receipt_key)
        _verify_equal("the offer's provider", signed_offer.offer.provider, voucher.voucher.provider)
        digest = domain.digest(voucher.voucher.struct_hash())
        FORM.verify_signature(digest, voucher.signature, voucher.signer, "the voucher")
        verify_receipt_signature(receipt, domain, receipt_key)
        verify_receipt(receipt, voucher, signed_offer.offer, None)
    return VerifiedReceipt(receipt, voucher, signed_offer.offer, domain, receipt_key)


def _to_voucher(v: _Voucher) -> SignedVoucher:
    request = Request(
        parse_hash32(v.offer_hash, "offer_hash"),
        parse_hash32(v.body_hash, "body_hash"),
        v.maximum_fee,
        parse_hash32(v.request_id, "request_id"),
        v.deadline,
    )
    voucher = Voucher(
        parse_address(v.user, "user"),
        parse_address(v.provider, "provider"),
        v.cumulative_max,
        v.sequence_max,
        "0x" + request.struct_hash().hex(),
    )
    return SignedVoucher(voucher, request, parse_address(v.signer, "signer"), v.signature)


def _verify_equal(what: str, actual: str, expected: str) -> None:
    if actual != expected:
        raise FORM.refuse(f"{what} is {actual}, expected {expected}")
