"""Reputations for commands: evidence files in, chain beside, and what matching goes by out."""
