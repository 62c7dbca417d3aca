"""Records: what recorders keep, and how the two sides of a request use and watch them.

A recorder's side:

recorder_book      entries that wait, leaves that match, commits: durable
                   (recorder_entries, recorder_tables)

Both sides of a request:

sources            receipts of the two books that are not submitted yet
submission_book    what was submitted where, promised and proven: durable (submission_tables)
recorder_client    talking to a recorder over HTTP
answers            what a side signs, and what an answer must hold
proving            the proofs that are owed, the promises that were broken
watch              holds what a recorder serves against the chain
submitter          the loop: submit, watch, prove, go to the next recorder
chain_check        one proof against the chain, for whoever holds it

Source: `docs/records.md`; `docs/decisions/0014-records.md`.
"""
