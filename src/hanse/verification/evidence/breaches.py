"""A broken promise as a file: proven by the provider's own signatures, with no model at all.

    data = make_breach(document, receipt, signer, now_s, entries)    None: it keeps its promise
    found = verify_breach(data, verify_receipt_document)
    found.breach, found.witness

What is promised and what breaks it: `hanse.protocol.commitments.promises`. The receipt file inside
holds offer, request and receipt with their signatures. That is all of it for a bill without a
commitment; of a bill above its commitment the last committed position shows how many there are,
since the root binds their number. Neither question nor answer is in the file, but for one token.

Whoever hands it out signs it: as a word on the provider it weighs by that witness's stake. That it
is true takes nobody's word.

    Breach(address witness,bytes32 receiptHash,uint256 breach,uint256 seenAt)

Source: `docs/verification/evidence-file.md`, section "Broken promises".
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from hanse.protocol.commitments.promises import Breach, describe_breach, find_breach
from hanse.protocol.commitments.tree import Entry, OpenedPosition, open_positions, verify_positions
from hanse.protocol.eip712 import Domain, address_word, uint_word
from hanse.protocol.errors import VerificationError
from hanse.protocol.merkle import InclusionProof
from hanse.protocol.messages import SignedReceipt
from hanse.protocol.signatures import (
    Address,
    DigestSigner,
    Hash32,
    keccak,
    parse_address,
    to_hex,
)
from hanse.protocol.wire.files import FileForm
from hanse.verification.evidence.files import VerifiedReceipt

FORMAT = "hanse-breach-1"

FILE_BYTES_MAX = 98_304
"""A receipt file of at most 64 KiB, and a proof of 17 hashes."""

TIME_S_MAX = 2**40

_NUMBERS = {Breach.UNCOMMITTED: 1, Breach.OVERBILLED: 2}
"""As signed."""

_TYPEHASH = keccak(b"Breach(address witness,bytes32 receiptHash,uint256 breach,uint256 seenAt)")


class _Last(msgspec.Struct, forbid_unknown_fields=True):
    """The last committed position: how many there are."""

    positions: int
    token: int
    fingerprint: bytes
    siblings: list[bytes]


class _File(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    receipt: dict[str, Any]
    breach: Breach
    last: _Last | None
    witness: str
    seen_at: int
    signature: str


FORM = FileForm(FORMAT, _File, FILE_BYTES_MAX, "evidence_invalid", "this breach does not hold")


class VerifiedBreach(msgspec.Struct, frozen=True):
    """What a file proves.

    Attributes:
        receipt: who promised and billed what to whom.
        breach: of which promise.
        reason: the two values that disagree.
        witness: who hands it out.
        seen_at: unix seconds, by the witness's clock.
        digest: what the witness signed.
    """

    receipt: VerifiedReceipt
    breach: Breach
    reason: str
    witness: Address
    seen_at: int
    digest: Hash32


def make_breach(
    document: dict[str, Any],
    receipt: VerifiedReceipt,
    signer: DigestSigner,
    now_s: int,
    entries: Sequence[Entry] = (),
) -> bytes | None:
    """The file of a receipt that breaks a promise; None of one that does not.

    Args:
        document: the receipt file.
        receipt: what it proves.
        signer: the witness.
        now_s: unix seconds.
        entries: of the opening; none if nobody has seen it.
    """
    served = receipt.receipt.receipt
    breach = find_breach(receipt.offer, served, len(entries) or None)
    if breach is None:
        return None
    last = None
    if breach is Breach.OVERBILLED:
        (opened,) = open_positions(entries, (len(entries) - 1,))
        entry, siblings = opened.entry, list(opened.proof.siblings)
        last = _Last(len(entries), entry.token, entry.fingerprint, siblings)
    digest = _get_digest(receipt.domain, receipt.receipt, breach, signer.address, now_s)
    signature = signer.sign_digest(digest)
    file = _File(FORMAT, document, breach, last, signer.address, now_s, signature)
    return msgspec.json.encode(file) + b"\n"


def is_breach(raw: bytes) -> bool:
    """Whether a file means to be one of these, and not an audit's evidence."""
    return FORM.is_meant(raw)


def verify_breach(raw: bytes, verify_receipt: Callable[[bytes], VerifiedReceipt]) -> VerifiedBreach:
    """Check a file of anybody; pure.

    1. The receipt file inside is whole: offer, voucher and receipt are signed and fit together.
    2. Offer and receipt, and the last position where one is needed, show this breach.
    3. The witness signed that it hands this out.

    The caller still owes: that the receipt key was the provider's, from the Registry.

    Raises:
        VerificationError: naming what does not fit.
    """
    file = _decode(raw)
    receipt = verify_receipt(msgspec.json.encode(file.receipt))
    served = receipt.receipt.receipt
    positions = None if file.last is None else _count(file.last, served.commitment_root)
    breach = find_breach(receipt.offer, served, positions)
    if breach is not file.breach:
        raise FORM.refuse(f"offer and receipt show {breach or 'no breach'}, the file {file.breach}")
    digest = _get_digest(receipt.domain, receipt.receipt, breach, file.witness, file.seen_at)
    FORM.verify_signature(digest, file.signature, file.witness, "the breach")
    reason = describe_breach(breach, served, positions)
    return VerifiedBreach(receipt, breach, reason, file.witness, file.seen_at, to_hex(digest))


def _decode(raw: bytes) -> _File:
    file = FORM.decode(raw)
    with FORM.reading():
        is_small = parse_address(file.witness, "witness") == file.witness
    if not is_small or not 0 <= file.seen_at < TIME_S_MAX:
        raise FORM.refuse("its witness or its time is written in another way")
    return file


def _count(last: _Last, root: Hash32) -> int:
    """How many positions a root binds, shown by the last of them."""
    proof = InclusionProof(last.positions - 1, last.positions, tuple(last.siblings))
    try:
        verify_positions([OpenedPosition(Entry(last.token, last.fingerprint), proof)], root)
    except VerificationError as error:  # of another code
        raise FORM.refuse(error.message) from None
    return last.positions


def _get_digest(
    domain: Domain, receipt: SignedReceipt, breach: Breach, witness: Address, seen_at: int
) -> bytes:
    words = (
        _TYPEHASH,
        address_word(witness),
        receipt.receipt.struct_hash(),
        uint_word(_NUMBERS[breach]),
        uint_word(seen_at),
    )
    return domain.digest(keccak(b"".join(words)))
