"""What is held against a run once it is quiet.

checks     what must be true (read this first)
books      both sides' databases and the contracts, read apart from their own code
reference  the chain's history once more on the reference ledger
"""
