"""What the 64 bytes of a quote's report data bind, and the nonce's form.

    report data = SHA-512( "hanse attestation 1" || 0x00      20 bytes
                           || provider                        20
                           || receipt key's address           20
                           || nonce                           32
                           || SHA-256 of the GPU's evidence   32, zeros if there is none )

Every part has a fixed length, so no two sets of parts have one encoding. The receipt key is the one
that signs offers and receipts: a machine whose quote binds it made what it signs, as long as the
key never leaves the machine, which is what the measured software has to see to. The GPU's evidence
is in it, so that nobody between can take it away or put another in its place.

Source: decision 33.
"""

import hashlib

from hanse.protocol.signatures import Address, to_bytes

TAG = b"hanse attestation 1\x00"
"""Keeps this hash apart from every other that the machine may be asked to quote."""

NONCE_BYTES = 32
"""As long as NVIDIA's nonces are, so that both kinds of evidence carry the same one."""

ATTESTATION_PATH = "/hanse/v1/attestation/"
"""Where a broker answers; the nonce follows, as `0x` and 64 hexadecimal digits."""

NO_GPU = bytes(32)
"""Stands where there is no GPU's evidence."""


def get_report_data(
    provider: Address, receipt_key: Address, nonce: bytes, gpu_evidence: bytes = b""
) -> bytes:
    """The report data that a machine must have asked its quote for."""
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"a nonce has {NONCE_BYTES} bytes, this one {len(nonce)}")
    gpu_hash = hashlib.sha256(gpu_evidence).digest() if gpu_evidence else NO_GPU
    parts = (TAG, to_bytes(provider), to_bytes(receipt_key), nonce, gpu_hash)
    return hashlib.sha512(b"".join(parts)).digest()
