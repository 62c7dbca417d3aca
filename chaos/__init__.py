"""The chaos runner: the whole market in one process, broken on purpose, from one seed.

    make chaos SEED=17 STEPS=300      # one JSON line; exit status 1 if anything was found
    make chaos STEPS=300              # a fresh seed, printed
    make chaos SEED=1 STEPS=200 SEEDS=200

Users, a gateway, three brokers of two providers, a recorder and a chain run their real code on one
deterministic event loop with a virtual clock. What is not theirs is ours: the order of turns, the
network, the disk's commits, the chain's blocks, the node's honesty, the wall clocks. All of it
follows from the seed, so a run that fails fails again: the same seed gives the same trace, hash and
all. It is a test of the product and no part of it: nothing here is shipped.

How it is put together, from the bottom up:

machine/  loop: virtual time, a lot draws whose turn it is, kill -9 at any turn; disk: real SQLite,
          its commits where we want them; network: messages lost, late, doubled, cut, stuck
chain/    a real EVM under blocks, a mempool, reorganisations, and a node that lies
market/   components that outlive their processes: brokers, a user, a gateway and its application,
          a recorder, the store of traces
verdict/  what must be true at the end (`checks`: read this first), by plain SQL, by the contracts'
          views, and by the chain's history replayed on the reference ledger
world     one seed's loop, chain, network and notes
driver    one step: a request, a move of money or a fault; then heal and drain
faults    what goes wrong, and how likely
bugs      defects that can be put in, to prove that they are found
run       one seed to its verdict

When a seed fails: the last events stand in `.chaos/seed-N-steps-N.txt`, the violations first. Make
it fail with fewer steps if it can, then read upwards from the first violation.

Source: TigerBeetle's VOPR and FoundationDB's simulation for the idea; decision 19.
"""
