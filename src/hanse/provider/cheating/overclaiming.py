"""Cheat `overclaim`: the whole of the user's best voucher is settled, whatever was served.

Escrow pays it: a voucher is what the user was ready to pay at most. The receipt for the sequence
that the claim names says less, and is the proof.
"""

from dataclasses import replace

from hanse.contracts import Claim


def overclaim(claim: Claim) -> Claim:
    """The same claim for all that its voucher allows."""
    return replace(claim, claimed=claim.cumulative_max)
