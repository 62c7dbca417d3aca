"""Evidence of the toy model's answers, signed by all sides."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from coincurve import PrivateKey

from hanse.protocol.eip712 import Domain
from hanse.protocol.messages import Offer, SignedOffer, SignedReceipt, Voucher
from hanse.protocol.signatures import get_address, sign_digest, to_hex
from hanse.protocol.wire import offer_to_json, receipt_to_json
from hanse.sdk.receipt_file import FORMAT as RECEIPT_FORMAT
from hanse.verification.audits.calibration import Calibration
from hanse.verification.evidence.files import encode_evidence
from hanse.verification.evidence.statement import Content, Model, Statement, sign_statement
from tests.verification.audits.bought_answers import OFFER, Sold, audit, sell
from tests.verification.audits.toy_model import ToyModel

DOMAIN = Domain(31_337, "0x" + "e5" * 20)
AUDITED_AT = 1_800_000_100


@dataclass
class Signer:
    secret: PrivateKey

    @property
    def address(self) -> str:
        return get_address(self.secret.public_key)

    def sign_digest(self, digest: bytes) -> str:
        return sign_digest(self.secret, digest)


BROKER, USER, AUDITOR, STRANGER = (Signer(PrivateKey(bytes([n]) * 32)) for n in (1, 2, 3, 4))


def make_receipt_document(sold: Sold) -> dict[str, Any]:
    """The receipt file of what was sold, signed by all sides."""
    bought = sold.bought
    request = bought.request
    voucher = Voucher(USER.address, bought.offer.provider, 5_000, 10, to_hex(request.struct_hash()))
    receipt = msgspec.structs.replace(
        bought.receipt.receipt, user=USER.address, signer=USER.address
    )
    signed = SignedReceipt(receipt, BROKER.sign_digest(DOMAIN.digest(receipt.struct_hash())))
    sold.bought = msgspec.structs.replace(bought, receipt=signed)
    offer = SignedOffer(bought.offer, BROKER.sign_digest(DOMAIN.digest(bought.offer.struct_hash())))
    return {
        "format": RECEIPT_FORMAT,
        "domain": {"chain_id": DOMAIN.chain_id, "escrow": DOMAIN.escrow},
        "receipt_key": BROKER.address,
        "voucher": {
            "user": USER.address, "provider": bought.offer.provider, "signer": USER.address,
            "cumulative_max": "5000", "sequence_max": "10", "offer_hash": request.offer_hash,
            "body_hash": request.body_hash, "maximum_fee": str(request.maximum_fee),
            "request_id": request.request_id, "deadline": request.deadline,
            "signature": USER.sign_digest(DOMAIN.digest(voucher.struct_hash())),
        },
        "offer": offer_to_json(offer),
        "receipt": receipt_to_json(signed),
    }  # fmt: skip


def make_evidence(
    served: ToyModel,
    calibration: Calibration,
    *,
    with_content: bool = True,
    change: Callable[[Statement], Statement] = lambda statement: statement,
    signer: Signer = AUDITOR,
    number: int = 1,
    offer: Offer = OFFER,
) -> bytes:
    sold = sell(served, 40, number, offer=offer)
    document = make_receipt_document(sold)
    found = audit(sold, calibration)
    assert found.measured is not None
    bought = sold.bought
    content = Content(
        bought.path, bought.body, bought.response, sold.opening, found.alignment.prompt_tokens
    )
    statement = change(
        Statement(
            AUDITOR.address,
            AUDITED_AT,
            "hanse test",
            Model(
                offer.manifest_root, "0x" + "77" * 32, offer.provider, 1, "0x" + "88" * 32, 4 / 127
            ),
            content.get_hash(),
            found.alignment.count,
            found.alignment.reasons,
            found.measured,
            calibration,
            found.judgement,
        )
    )
    signature = sign_statement(statement, bought.receipt, DOMAIN, signer)
    return encode_evidence(document, statement, signature, content if with_content else None)
