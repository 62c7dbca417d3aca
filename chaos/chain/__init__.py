"""A chain in this process: a real EVM with blocks, a mempool, reorganisations, and a faulty node.

transactions  signed bytes back to who sends what
state         an EVM that can stand at any recent block, on any branch
blocks        blocks, the mempool, mining and reorganisations
node          the JSON-RPC face that each component sees, with the lies that it is told
"""
