"""Evidence as a file: all that a stranger needs to check a cheat, and to bring it to the chain.

    document = evidence_to_document(domain, finding)      JSON-ready (docs/dispute-file.md)
    evidence = verify_evidence_document(content)          offline: no chain, database or network

An equivocation is proven by the file alone, but for whose keys they are. An overclaim needs one
fact more, which only the chain can say: how much was claimed, over which sequence. The file names
both as they were seen; Escrow looks at its own.

Source: `docs/decisions/0016-disputes.md`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import VerificationError
from hanse.protocol.limits import AMOUNT_MAX, SEQUENCE_MAX
from hanse.protocol.messages import SignedReceipt
from hanse.protocol.signatures import Address, Hash32, keccak, parse_address, recover_signer
from hanse.protocol.wire import receipt_from_json, receipt_to_json
from hanse.protocol.wire.fields import parse_count
from hanse.protocol.wire.files import FileForm
from hanse.settlement.disputes.findings import Claimed, Finding, Kind
from hanse.store.files import read_file

FORMAT = "hanse-dispute-1"

FILE_BYTES_MAX = 16_384
"""A file with two receipts has about 2 kB."""


class _Domain(msgspec.Struct, forbid_unknown_fields=True):
    chain_id: int
    escrow: str


class _Claimed(msgspec.Struct, forbid_unknown_fields=True):
    amount: str
    sequence: str


class _File(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    kind: Kind
    domain: _Domain
    claimed: _Claimed
    receipts: list[dict[str, Any]]


FORM = FileForm(FORMAT, _File, FILE_BYTES_MAX, "receipt_invalid", "this dispute file does not hold")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a file proves.

    Attributes:
        domain: which Escrow judges it.
        finding: the cheat and its receipts.
        receipt_keys: that signed them, in their order. Whether they are or were the provider's is
            the Registry's to say.
    """

    domain: Domain
    finding: Finding
    receipt_keys: tuple[Address, ...]

    @property
    def dispute_id(self) -> Hash32:
        """Names the dispute: the same receipts against the same claim are one dispute."""
        return get_dispute_id(self.domain, self.finding)


def get_dispute_id(domain: Domain, finding: Finding) -> Hash32:
    """The hash of what is disputed.

    A claim that rises, or takes more on the strength of the dearer of two receipts, is another
    dispute, since more is due for it.
    """
    digests = b"".join(domain.digest(of.receipt.struct_hash()) for of in finding.receipts)
    amount = finding.claimed.amount if finding.kind is Kind.OVERCLAIM else finding.loss
    return "0x" + keccak(finding.kind.encode() + digests + amount.to_bytes(32, "big")).hex()


def evidence_to_document(domain: Domain, finding: Finding) -> dict[str, Any]:
    """The file's content, JSON-ready."""
    return {
        "format": FORMAT,
        "kind": finding.kind.value,
        "domain": {"chain_id": domain.chain_id, "escrow": domain.escrow},
        "claimed": {
            "amount": str(finding.claimed.amount),
            "sequence": str(finding.claimed.sequence),
        },
        "receipts": [receipt_to_json(signed) for signed in finding.receipts],
    }


def verify_evidence_file(path: Path) -> Evidence:
    """Check an exported dispute.

    Raises:
        RequestError: `not_found` if there is no such file.
        VerificationError: naming what does not fit.
    """
    return verify_evidence_document(read_file(path, FILE_BYTES_MAX))


def verify_evidence_document(content: bytes) -> Evidence:
    """Check the JSON of an exported dispute; pure.

    1. Every receipt is well formed and signed by some key, in the one form that Escrow takes.
    2. Overclaim: one receipt, of the sequence claimed over or a later one, for less than claimed.
    3. Equivocation: two receipts for one sequence of one sub-account that differ.

    The caller still owes: that the keys are or were the provider's, from the Registry; what was
    claimed, from Escrow. Both are looked at when the dispute is raised.

    Raises:
        VerificationError: naming what does not fit.
    """
    file = FORM.decode(content)
    with FORM.reading():
        domain = Domain(file.domain.chain_id, parse_address(file.domain.escrow, "escrow"))
        claimed = Claimed(
            parse_count(file.claimed.amount, AMOUNT_MAX, "amount"),
            parse_count(file.claimed.sequence, SEQUENCE_MAX, "sequence"),
        )
        receipts = tuple(receipt_from_json(receipt) for receipt in file.receipts)
        keys = tuple(_recover(domain, signed) for signed in receipts)
    finding = Finding(file.kind, receipts, claimed)
    verify_finding(finding)
    return Evidence(domain, finding, keys)


def verify_finding(finding: Finding) -> None:
    """Check that the receipts contradict the claim, or one another.

    Raises:
        VerificationError: `receipt_invalid`, with the two values that do agree.
    """
    receipts = [signed.receipt for signed in finding.receipts]
    if finding.kind is Kind.OVERCLAIM:
        _verify_count(finding, 1)
        claimed, (receipt,) = finding.claimed, receipts
        if receipt.sequence < claimed.sequence:
            raise VerificationError(
                "receipt_invalid",
                f"the receipt has sequence {receipt.sequence}, the claim covers {claimed.sequence}",
            )
        if receipt.cumulative_fee >= claimed.amount:
            raise VerificationError(
                "receipt_invalid",
                f"the receipt says {receipt.cumulative_fee}, claimed were {claimed.amount}: "
                "that is no overclaim",
            )
        return
    _verify_count(finding, 2)
    first, second = receipts
    names = [(r.user, r.provider, r.signer, r.sequence) for r in receipts]
    if names[0] != names[1]:
        raise VerificationError(
            "receipt_invalid",
            f"the receipts are for sequences {first.sequence} and {second.sequence}, "
            "or for two sub-accounts",
        )
    if first == second:
        raise VerificationError("receipt_invalid", "both receipts say the same")
    if first.cumulative_fee > second.cumulative_fee:
        raise VerificationError(
            "receipt_invalid",
            f"the receipt over {second.cumulative_fee} must come before the one over "
            f"{first.cumulative_fee}",
        )


def _verify_count(finding: Finding, expected: int) -> None:
    if len(finding.receipts) != expected:
        raise VerificationError(
            "receipt_invalid",
            f"{len(finding.receipts)} receipts, an {finding.kind} is proven by {expected}",
        )


def _recover(domain: Domain, signed: SignedReceipt) -> Address:
    return recover_signer(domain.digest(signed.receipt.struct_hash()), signed.signature)
