"""What the commands on records do: run a recorder, make and check proofs, look at what waits.

process       `hanse recorder start`
looks         `hanse recorder unmatched` and `list`
descriptions  a checked receipt for people and programs
patience      slow recorders, where many proofs are asked for
proofs        `hanse receipts prove`, and the second half of `hanse receipts verify`
"""
