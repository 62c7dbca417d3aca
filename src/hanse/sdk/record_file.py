"""A receipt with the proof that it is recorded, as a file that anyone can check.

    export_record(receipt_document, proof, records)  ->  the document (docs/records.md)
    verify_record_document(content)                  ->  VerifiedRecord, or VerificationError

The receipt inside is the receipt file of `hanse.sdk.receipt_file`, unchanged. The file proves: this
receipt is a leaf of this root, and this root has this place in this recorder's chain of heads. That
the chain has the root is one look at one transaction, which the file names
(`hanse.settlement.records.chain_check`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from hanse.protocol.records import RecordProof, verify_record
from hanse.protocol.records.proof_wire import proof_from_json, proof_to_json
from hanse.protocol.signatures import Address, parse_address
from hanse.protocol.wire.files import FileForm
from hanse.sdk.receipt_file import VerifiedReceipt, verify_receipt_document
from hanse.settlement.records.sources import get_receipt_digest
from hanse.store.files import read_file

FORMAT = "hanse-record-1"

FILE_BYTES_MAX = 131_072
"""A receipt file of 64 KiB at most, and a proof of 3 kB."""


@dataclass(frozen=True)
class VerifiedRecord:
    """What a record file proves.

    `records` is the contract that is said to hold the commit; whether it does is the chain's to
    say.
    """

    receipt: VerifiedReceipt
    proof: RecordProof
    records: Address


class _File(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    receipt: dict[str, Any]
    records: str
    proof: dict[str, Any]


FORM = FileForm(FORMAT, _File, FILE_BYTES_MAX, "proof_invalid", "this record file does not hold")


def export_record(
    receipt_document: dict[str, Any], proof: RecordProof, records: Address
) -> dict[str, Any]:
    """The document of one recorded receipt, JSON-ready."""
    return {
        "format": FORMAT,
        "receipt": receipt_document,
        "records": records,
        "proof": proof_to_json(proof),
    }


def is_record_document(content: bytes) -> bool:
    """Whether a file is of this format rather than a bare receipt's."""
    return FORM.is_meant(content)


def read_document(path: Path) -> bytes:
    """A receipt or record file, or so much of it that it is too long to be one.

    Raises:
        RequestError: `not_found` if there is no such file.
    """
    return read_file(path, FILE_BYTES_MAX)


def verify_record_document(content: bytes) -> VerifiedRecord:
    """Check the JSON of an exported record; pure.

    1. The receipt inside is checked as a receipt file.
    2. Its digest, with the two trace hashes, is a leaf of the proof's root, at the proof's place.
    3. The root has its place in the chain of heads: its head follows from the one before.

    The caller still owes: that the receipt key was the provider's, from the Registry; that the
    chain has the commit, from Records.

    Raises:
        VerificationError: naming what does not fit.
    """
    file = FORM.decode(content)
    receipt = verify_receipt_document(msgspec.json.encode(file.receipt))
    with FORM.reading():
        records = parse_address(file.records, "records")
        proof = proof_from_json(file.proof)
        verify_record(proof, get_receipt_digest(receipt.receipt, receipt.domain))
    return VerifiedRecord(receipt, proof, records)
