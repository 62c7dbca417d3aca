"""Claims of a settlement batch and their results, between named fields and packed words.

    data = encode_settle(provider, claims, records_head)
    results = decode_results(fields["results"])   # fields of a Settled event

Both are packed: a claim into six words, a result into one. As nine words with `address` fields and
two words a result, a claim costs about 1,200 gas more (docs/decisions/0004).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sha3 import keccak_256

from hanse.contracts.artifacts import load_artifact

_AMOUNT_MASK = 2**96 - 1
_SEQUENCE_LOW_MASK = 2**32 - 1


@dataclass(frozen=True)
class Claim:
    """What a provider claims from one sub-account under its last voucher.

    Attributes:
        user: whose sub-account it is.
        signer: who signed the voucher.
        cumulative_max: the voucher's, base units since the sub-account began, below 2**96.
        claimed: cumulative base units that the provider claims; at most `cumulative_max`.
        sequence: finished requests that `claimed` covers; at most `sequence_max`.
        sequence_max: the voucher's, below 2**64.
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

    def to_abi(self) -> tuple[int, int, int, bytes, bytes, int]:
        """The packed struct that `Escrow.settle` takes.

        Raises:
            OverflowError: an amount is above 96 bits or a sequence above 64.
        """
        for value, bits in (
            (self.claimed, 96),
            (self.cumulative_max, 96),
            (self.sequence, 64),
            (self.sequence_max, 64),
        ):
            if not 0 <= value < 2**bits:
                raise OverflowError(f"{value} does not fit {bits} bits of a claim")
        return (
            int(self.user, 16) << 96 | self.claimed,
            int(self.signer, 16) << 96 | self.cumulative_max,
            self.sequence << 192 | self.sequence_max,
            self.request_hash,
            self.r,
            int.from_bytes(self.vs, "big"),
        )


@dataclass(frozen=True)
class ClaimResult:
    """What became of one claim.

    Attributes:
        key_prefix: the first 15 bytes of the sub-account's key, see `get_sub_account_key`.
        status: 1 unknown sub-account, 2 bad signature, 3 over the voucher, 4 nothing new,
            5 partial, 6 paid.
        sequence_low: the low 32 bits of the sub-account's sequence after the claim. As sequences
            never fall, `extend_sequence` gives the whole.
        paid: base units that this claim brought; 0 below status 5. The sub-account's `claimed`
            rose by as much.
    """

    key_prefix: bytes
    status: int
    sequence_low: int
    paid: int

    def extend_sequence(self, before: int) -> int:
        """The whole sequence after the claim, given what it was before it."""
        return before + ((self.sequence_low - before) & _SEQUENCE_LOW_MASK)


def get_sub_account_key(user: str, provider: str, signer: str) -> bytes:
    """Key of a sub-account on chain: keccak256 of the three addresses, one word each."""
    words = b"".join(bytes(12) + bytes.fromhex(item[2:]) for item in (user, provider, signer))
    digest: bytes = keccak_256(words).digest()
    return digest


def encode_settle(provider: str, claims: Sequence[Claim], records_head: bytes = bytes(32)) -> bytes:
    """Calldata of `Escrow.settle`."""
    rows = [claim.to_abi() for claim in claims]
    return load_artifact("Escrow").encode_call("settle", provider, rows, records_head)


def decode_results(results: Sequence[int]) -> tuple[ClaimResult, ...]:
    """Read the `results` of a Settled event, in the order of the claims."""
    return tuple(
        ClaimResult(
            key_prefix=(word >> 136).to_bytes(15, "big"),
            status=word >> 128 & 0xFF,
            sequence_low=word >> 96 & _SEQUENCE_LOW_MASK,
            paid=word & _AMOUNT_MASK,
        )
        for word in results
    )
