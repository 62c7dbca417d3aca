"""What an auditor states about one answer, and the digest that it signs.

    Audit(address auditor,bytes32 receiptHash,bytes32 contentHash,bytes32 statementHash,
          uint256 verdict,uint256 auditedAt)

EIP-712, in the domain of the receipt. `statementHash` is the hash of the statement's JSON as this
module writes it, so there is one text for each statement. `contentHash` binds what was bought
(request, answer, opening) without showing it: an auditor may hand out the statement alone.
"""

from typing import ClassVar

import msgspec

from hanse.protocol.eip712 import Domain, address_word, hash_word, uint_word
from hanse.protocol.hashing import hash_response
from hanse.protocol.messages import SignedReceipt
from hanse.protocol.signatures import Address, DigestSigner, Hash32, Signature, keccak, to_hex
from hanse.verification.audits.calibration import Calibration
from hanse.verification.audits.judging import Judgement, Verdict
from hanse.verification.audits.measuring import Measured

VERDICT_NUMBERS = {Verdict.INCONCLUSIVE: 0, Verdict.HONEST: 1, Verdict.CHEAT: 2}
"""As signed."""


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the auditor ran.

    Attributes:
        manifest_root: of the base model.
        file_sha256: of the file that was run.
        provider: whom the copy is bound to; empty if it is no copy.
        epoch: of the copy's key.
        key_commitment: of the copy's key.
        scale: one step of its fingerprints, in logits.
    """

    manifest_root: Hash32
    file_sha256: Hash32
    provider: str
    epoch: int
    key_commitment: str
    scale: float


class Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was bought and committed to: everything about an audit that is private.

    Attributes:
        path: of the operation.
        body: of the request.
        response: the answer's bytes, of a stream its data frames in order.
        opening: of the receipt's commitment.
        prompt_tokens: as the auditor reads the body.
    """

    path: str
    body: bytes
    response: bytes
    opening: bytes
    prompt_tokens: tuple[int, ...]

    def get_hash(self) -> Hash32:
        """What the statement binds; SHA-256 over the JSON of this struct."""
        return hash_response(msgspec.json.encode(self))


class Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an auditor says.

    Attributes:
        auditor: who says it.
        audited_at: unix seconds, by its clock.
        software: name and version of what made the file.
        model: what it ran.
        content_hash: of the content.
        known_tokens: answer tokens from the first on that are known and spell the answer.
        misfits: reasons of `audits/alignment.py`.
        measured: its numbers; without positions if nothing could be run.
        calibration: that it judged by.
        judgement: what came out.
    """

    TYPE: ClassVar[str] = (
        "Audit(address auditor,bytes32 receiptHash,bytes32 contentHash,bytes32 statementHash,"
        "uint256 verdict,uint256 auditedAt)"
    )

    auditor: Address
    audited_at: int
    software: str
    model: Model
    content_hash: Hash32
    known_tokens: int
    misfits: tuple[str, ...]
    measured: Measured
    calibration: Calibration
    judgement: Judgement

    def struct_hash(self, receipt: SignedReceipt) -> bytes:
        """EIP-712 hash of the statement about this receipt."""
        return keccak(
            b"".join(
                (
                    _TYPEHASH,
                    address_word(self.auditor),
                    receipt.receipt.struct_hash(),
                    hash_word(self.content_hash),
                    hash_word(to_hex(keccak(msgspec.json.encode(self)))),
                    uint_word(VERDICT_NUMBERS[self.judgement.verdict]),
                    uint_word(self.audited_at),
                )
            )
        )


def sign_statement(
    statement: Statement, receipt: SignedReceipt, domain: Domain, signer: DigestSigner
) -> Signature:
    """The auditor's signature."""
    return signer.sign_digest(domain.digest(statement.struct_hash(receipt)))


_TYPEHASH = keccak(Statement.TYPE.encode())
