"""Disputes of the user's side: what a provider signed or claimed that cannot both be true.

findings       pure: which receipt contradicts a claim, which two contradict one another
evidence       the file that proves it to a stranger, offline
rejected       receipts that were signed and not taken, kept within bounds
dispute_book   what became of each dispute, durable
reading        everything that findings are made from, read at once
proven_fold    what Escrow's events say of proofs that were accepted

Source: `docs/decisions/0016-disputes.md`; `Escrow.prove_overclaim`, `Escrow.prove_equivocation`.
"""
