"""The rules of Hanse, pure: no I/O, no clock, no randomness.

units, limits      money as integers; every limit with its reason
errors             the error tree and the one table of codes
signatures, eip712 addresses, hashes, secp256k1; digests
messages           Offer, Request, Voucher, Receipt, Query
wire               the same as JSON and in headers
verify             checks that raise
hashing, merkle    bodies, responses, trees
pricing            the maximum fee of a request
books              the two off-chain books of a sub-account
ledger             the contracts' rules as a reference
"""
