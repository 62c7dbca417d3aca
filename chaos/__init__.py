"""The chaos runner: the whole market in one process, broken on purpose, from one seed.

    make chaos SEED=17 STEPS=300      # one JSON line; exit status 1 if anything was found
    make chaos STEPS=300              # a fresh seed, printed
    make chaos SEED=1 STEPS=200 SEEDS=200

Users, a gateway, two brokers, a recorder and a chain run their real code on one deterministic event
loop with a virtual clock. What is not theirs is ours: the order of turns, the network, the disk's
commits, the chain's blocks, the node's honesty, the wall clocks. All of it follows from the seed,
so a run that fails fails again: the same seed gives the same trace, hash and all. It is a test of
the product and no part of it: nothing here is shipped.

How it is put together, from the bottom up:

loop        virtual time; a lot draws whose turn it is; kill -9 at any turn
disk        real SQLite, its commits where we want them; slow, full, closed by a crash
network     requests and answers lost, late, doubled, cut, stuck
chain/      a real EVM under blocks, a mempool, reorganisations, and a node that lies
world       one seed's loop, chain, network and notes
components  a component outlives its processes; its supervisor starts it again
sellers     brokers          buyers     a user, a gateway and its application
recording   the recorder     faults     what goes wrong, and how likely
driver      one step: a request, a move of money or a fault; then heal and drain
books       both sides' databases and the contracts, read apart from their own code
reference   the chain's history once more on the reference ledger
checks      what must be true at the end (read this first)
bugs        defects that can be put in, to prove that they are found
run         one seed to its verdict

When a seed fails: the last events stand in `.chaos/seed-N-steps-N.txt`, the violations first. Make
it fail with fewer steps if it can, then read upwards from the first violation.

Source: TigerBeetle's VOPR and FoundationDB's simulation for the idea; decision 19.
"""
