"""A buyer audits what its gateway bought, by itself; `hanse audit watch` runs it.

watcher         kept answers decided one by one; evidence written
draws           which answers: by the chain's lottery, or by a secret of the buyer's
copies          the copy and the thresholds that an offer is audited with
unopened        openings that a broker owes and does not give
promises        bills without their commitment, out of the book into the folder
evidence_files  where evidence lies, and how it is written
challenges      cheats brought to Disputes, and followed to the end
rounds          watcher and challenger, again and again

A process of its own, since gateways load no models. Begin with `watcher`.
Source: docs/decisions/0037-own-audits.md.
"""
