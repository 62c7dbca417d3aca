"""Records, as the two sides of a request use and watch the recorders that keep them.

sides              the loop over a broker's or a user's own database
submitter          the loop: submit, watch, prove, go to the next recorder
sources            receipts of the two books that are not submitted yet
submission_book    what was submitted where, promised and proven: durable (submission_tables)
recorder_client    talking to a recorder over HTTP
answers            what a side signs, and what an answer must hold
proving            the proofs that are owed, the promises that were broken
watch              holds what a recorder serves against the chain
chain_check        one proof against the chain, for whoever holds it

The recorder itself is `hanse.recorder`; the two know each other from the wire only.

Source: `docs/records.md`; `docs/decisions/0014-records.md`.
"""
