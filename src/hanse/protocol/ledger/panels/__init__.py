"""Disputes by panel: staked auditors judge what only a recomputation shows.

    step = apply_challenge(ledger, challenger, signed, evidence_hash, uri, sealed_answer, now)

state     what is stored               challenges  challenge, respond, appeal
sealing   names, sealed votes          drawing     the draw of a panel
auditors  join, retire, leave          votes       seal, reveal, tally
closing   who gets what                invariants  what must always hold

Import from the modules: the ledger's own state imports this package's.

Source: `Disputes.vy`; docs/decisions/0032-disputes-by-panel.md.
"""
