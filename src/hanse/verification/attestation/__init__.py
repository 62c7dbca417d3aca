"""Attestation: what runs at a provider, by a quote of Intel's hardware.

    evidence = decode_evidence(body)                 what a broker answered
    nonces = NonceBook(clock, random_bytes)          issue() before it is asked
    attestation = verify_attestation(evidence, Expected(provider, receipt_key, nonce), policy,
                                     nonces, now_s)  an Attestation, or an error with its code

Needs the extra `attest` (dcap-qvl), imported when a quote is verified. What the report data binds
is `hanse.protocol.attestation.binding`'s; `docs/verification/attestation.md` tells it all.
"""

from hanse.verification.attestation.evidence import (
    EVIDENCE_BYTES_MAX,
    ApplicationEvent,
    Collateral,
    Evidence,
    GpuEvidence,
    decode_evidence,
    encode_evidence,
)
from hanse.verification.attestation.nonces import NonceBook
from hanse.verification.attestation.policy import Policy, decode_policy, make_policy
from hanse.verification.attestation.quotes import VerifiedQuote, verify_quote
from hanse.verification.attestation.verify import Attestation, Expected, verify_attestation

__all__ = [
    "ApplicationEvent",
    "Attestation",
    "Collateral",
    "EVIDENCE_BYTES_MAX",
    "Evidence",
    "Expected",
    "GpuEvidence",
    "NonceBook",
    "Policy",
    "VerifiedQuote",
    "decode_evidence",
    "decode_policy",
    "encode_evidence",
    "make_policy",
    "verify_attestation",
    "verify_quote",
]
