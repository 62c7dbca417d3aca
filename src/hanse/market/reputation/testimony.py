"""A testimony: one witness's word on a provider, with the hash of what shows it.

Who reads one in has checked its signature and, for an audit, may have run the evidence again; here
it is data. A witness is an address with a stake on the chain: that stake is all its word weighs.
`hanse.auditor.reputation` makes testimonies of evidence files.
"""

from enum import StrEnum

import msgspec

from hanse.protocol.signatures import Address, Hash32


class Word(StrEnum):
    """What a witness says.

    Success of ordinary requests is not among them: it costs nothing to invent, and who paid for an
    answer knows better.
    """

    AUDIT_PASSED = "audit_passed"
    AUDIT_FAILED = "audit_failed"
    AUDIT_DOUBTED = "audit_doubted"  # what it found is no ground for a penalty alone
    REQUEST_FAILED = "request_failed"
    FIRST_TOKEN = "first_token"  # noqa: S105  # of an answer, not of a password


class Testimony(msgspec.Struct, frozen=True, order=True):
    """See the module.

    Attributes:
        evidence_hash: of the signed file that shows it; two with one hash count once.
        provider: whom it is about.
        witness: who says so, and signed the evidence.
        word: what.
        at_s: time of the block at which the evidence was public, unix seconds.
        first_token_ms: how long the first token took; 0 for every other word.
    """

    evidence_hash: Hash32
    provider: Address
    witness: Address
    word: Word
    at_s: int
    first_token_ms: int = 0
