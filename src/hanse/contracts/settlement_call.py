"""The call and the event of one settlement batch, between ABI tuples and named fields.

    data = encode_settle(provider, claims, records_head)
    results = decode_results(fields["results"])   # fields of a Settled event

The call is plain ABI. The event packs two words a claim (256 gas each): the sub-account's key, then
paid in bits 0..95, the sub-account's sequence after the claim in bits 96..159 and the status in bits
160..167. What the sub-account has had claimed follows: it rose by `paid`.

Source: docs/decisions/0004-escrow-storage-and-claims.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sha3 import keccak_256

from hanse.contracts.artifacts import load_artifact

_AMOUNT_MASK = 2**96 - 1
_SEQUENCE_MASK = 2**64 - 1


@dataclass(frozen=True)
class Claim:
    """What a provider claims from one sub-account under its last voucher.

    Attributes:
        user: whose sub-account it is.
        signer: who signed the voucher.
        cumulative_max: the voucher's, base units since the sub-account began.
        claimed: cumulative base units that the provider claims; at most `cumulative_max`.
        sequence: finished requests that `claimed` covers; at most `sequence_max`.
        sequence_max: the voucher's.
        request_hash: the voucher's, 32 bytes.
        r: first half of the voucher's EIP-2098 signature, 32 bytes.
        vs: its second half, 32 bytes.
    """

    user: str
    signer: str
    cumulative_max: int
    claimed: int
    sequence: int
    sequence_max: int
    request_hash: bytes
    r: bytes
    vs: bytes


@dataclass(frozen=True)
class ClaimResult:
    """What became of one claim.

    Attributes:
        key: the sub-account's key, see `get_sub_account_key`.
        status: 1 unknown sub-account, 2 bad signature, 3 over the voucher, 4 nothing new,
            5 partial, 6 paid.
        sequence: the sub-account's after the claim.
        paid: base units that this claim brought; 0 below status 5.
    """

    key: bytes
    status: int
    sequence: int
    paid: int


def get_sub_account_key(user: str, provider: str, signer: str) -> bytes:
    """Key of a sub-account on chain: keccak256 of the three addresses, one word each."""
    words = b"".join(bytes(12) + bytes.fromhex(item[2:]) for item in (user, provider, signer))
    digest: bytes = keccak_256(words).digest()
    return digest


def encode_settle(provider: str, claims: Sequence[Claim], records_head: bytes = bytes(32)) -> bytes:
    """Calldata of `Escrow.settle`."""
    rows = [
        (
            claim.user,
            claim.signer,
            claim.cumulative_max,
            claim.claimed,
            claim.sequence,
            claim.sequence_max,
            claim.request_hash,
            claim.r,
            int.from_bytes(claim.vs, "big"),
        )
        for claim in claims
    ]
    return load_artifact("Escrow").encode_call("settle", provider, rows, records_head)


def decode_results(words: Sequence[int]) -> tuple[ClaimResult, ...]:
    """Read the `results` of a Settled event, in the order of the claims."""
    return tuple(
        ClaimResult(
            key=key.to_bytes(32, "big"),
            status=word >> 160 & 0xFF,
            sequence=word >> 96 & _SEQUENCE_MASK,
            paid=word & _AMOUNT_MASK,
        )
        for key, word in zip(words[::2], words[1::2], strict=True)
    )
