"""Cheat `overclaim`: the whole of the user's best voucher is settled, whatever was served.

Escrow pays it: a voucher is what the user was ready to pay at most. The receipt for the sequence
that the claim names says less, and is the proof.
"""

from dataclasses import replace

from hanse.settlement.books.receipt_records import DueClaim


def overclaim(claim: DueClaim) -> DueClaim:
    """The same claim for all that its voucher allows."""
    return replace(claim, cumulative_fee=claim.cumulative_max)
