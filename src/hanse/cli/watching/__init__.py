"""`hanse audit watch`: a buyer audits what its gateway bought, by itself.

command.py      the command and its options
draws.py        which answers: by the chain's lottery, or by a secret of the buyer's
copies.py       the copy and the thresholds that an offer is audited with
watcher.py      kept answers decided one by one; evidence written
promises.py     bills without their commitment, out of the book into the folder
evidence_files.py  where evidence lies, and how it is written
challenges.py   cheats brought to Disputes, and followed to the end

A process of its own, since gateways load no models. Source: docs/decisions/0037-own-audits.md.
"""
