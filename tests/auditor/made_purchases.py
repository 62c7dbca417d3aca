"""Purchases and copies of the toy model, as the auditor takes them."""

import hashlib
from pathlib import Path

from hanse.auditor.opened_model import OpenedModel
from hanse.auditor.purchases import Purchase
from hanse.protocol.commitments.copies import CopyDescription
from tests.verification.audits.bought_answers import MANIFEST, make_auditor, sell
from tests.verification.audits.toy_model import ToyModel
from tests.verification.evidence.made_evidence import DOMAIN, make_receipt_document


def make_purchase(model: ToyModel) -> Purchase:
    sold = sell(model, 40)
    document = make_receipt_document(sold)
    return Purchase(sold.bought, sold.opening, document, DOMAIN)


def make_model(path: Path, provider: str, root: str = MANIFEST) -> OpenedModel:
    path.write_bytes(b"weights")
    file_hash = "0x" + hashlib.sha256(b"weights").hexdigest()
    copy = CopyDescription(
        1, root, provider, 3, "0x" + "88" * 32, "llama", "llama", "output_bias", "Q8_0", "test", 32,
        64, tuple(range(64, 80)), tuple(range(64, 80)), 30.0, 4 / 127, file_hash, 7,
    )  # fmt: skip
    return OpenedModel(make_auditor(), path, copy)
