"""What a challenge is named by, and what sealed votes and sealed answers are hashes of.

    seal_vote(challenge, 1, auditor, Verdict.UPHELD, salt)

A sealed vote binds challenge, round and auditor, so that nobody can hand in another's as its own.
The salt has to be random and kept: without it the vote cannot be revealed.

Source: `Disputes.vy`; docs/decisions/0032-disputes-by-panel.md.
"""

from enum import IntEnum

from hanse.protocol.eip712 import address_word, hash_word, uint_word
from hanse.protocol.signatures import Address, Hash32, keccak, to_hex


class Verdict(IntEnum):
    """What an auditor votes and a panel decides; also a challenge's answer.

    The numbers are the contract's. NONE is no verdict; as an answer, that nothing was planted.
    """

    NONE = 0
    UPHELD = 1
    REJECTED = 2


def name_challenge(receipt_hash: Hash32, challenger: Address, evidence_hash: Hash32) -> Hash32:
    """The name of a challenge: one challenger brings one evidence on one receipt once.

    Args:
        receipt_hash: EIP-712 digest of the receipt.
        challenger: who sends it.
        evidence_hash: keccak256 of the evidence file.
    """
    words = hash_word(receipt_hash), address_word(challenger), hash_word(evidence_hash)
    return to_hex(keccak(b"".join(words)))


def seal_answer(challenger: Address, answer: Verdict, salt: Hash32) -> Hash32:
    """What a challenge carries until its answer is opened."""
    words = address_word(challenger), uint_word(answer), hash_word(salt)
    return to_hex(keccak(b"".join(words)))


def seal_vote(
    challenge: Hash32, round_number: int, auditor: Address, verdict: Verdict, salt: Hash32
) -> Hash32:
    """What an auditor sends before it reveals its vote."""
    words = (
        hash_word(challenge),
        uint_word(round_number),
        address_word(auditor),
        uint_word(verdict),
        hash_word(salt),
    )
    return to_hex(keccak(b"".join(words)))
