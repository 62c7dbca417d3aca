"""Commitments: what binds an answer to how it was made, before anybody knows what is audited.

    seeds.py          the seed by which a request must be sampled
    fingerprints.py   16 bytes of a token, and how far two of them lie apart
    tree.py           the root over an answer's tokens and fingerprints, and openings of it
    lottery.py        which receipts are audited, from randomness that came after them
    promises.py       what an `embedded` offer promises with each bill, and what breaks it
    copies.py         what a copy says about itself in public

Pure like all of `protocol`: no I/O, clock or randomness. `verification/audits` uses them on the
user's side, `provider` and `engines` while serving.
"""
