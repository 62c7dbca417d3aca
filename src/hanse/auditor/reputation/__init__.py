"""Reputations out of evidence: files in, chain beside, and what matching goes by out.

evidence_folder  each file checked once, as a testimony
fetching         stakes and keys from the chain; a gateway's choices kept up to date

The arithmetic is `hanse.market.reputation`'s. Source: docs/decisions/0034-reputation.md.
"""
