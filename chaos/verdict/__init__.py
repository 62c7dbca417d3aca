"""What is held against a run once it is quiet.

checks     what must be true (read this first)
books      both sides' databases and the contracts, read apart from their own code
traces     what is noted against what is stored, and what it holds
reference  the chain's history once more on the reference ledger
"""
