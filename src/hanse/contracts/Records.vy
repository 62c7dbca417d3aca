# pragma version 0.4.3
# pragma evm-version cancun
# pragma optimize gas
"""
@title Hanse Records
@license Apache-2.0
@author The Hanse maintainers
@notice Where recorders leave the roots of what both sides of the market agree on: at most one a block
        interval, for all the providers that a recorder serves together. Holds no money and gives no
        right; a root is its recorder's word, fixed in order and in time.
@dev A recorder is any address: there is nothing to join and nobody to ask. Each has a chain of its own,

         head(n) = keccak256(abi_encode(head(n-1), root, count, fee_total)),  head(0) = 0

     so that a head names everything that was committed before it, and a recorder that shows two people
     two histories is caught by either of them with one read of `get_head` or of the events.

     How to stop it, and what still works then: nobody can. There is no owner, pause, upgrade or
     setting. Escrow never asks this contract: settling, refunds and disputes go on without it.

     No external call is made, so nothing can re-enter.

     Source of the rules: docs/decisions/0013-records-heads.md.
@custom:invariant Each is checked by name after every step of the stateful test.
     numbers_are_consecutive: a recorder's commits are 1, 2, 3, ..., one at a time.
     head_names_all_commits: it is the hash chain over exactly the events of that recorder.
     only_the_recorder_extends_its_chain: no other caller changes a recorder's head.
"""


# `number` counts the recorder's commits from 1; `count` receipts are under `root`, and `fee_total` is
# the sum of their fees in base units. `head` is the recorder's chain after this commit.
event Committed:
    recorder: indexed(address)
    number: indexed(uint256)
    root: bytes32
    count: uint256
    fee_total: uint256
    head: bytes32


# Recorder -> number of its commits after the first. A fresh slot costs 22,100 gas: counted so, the first
# commit pays for the head's and the second for this one, and none goes over 60,000.
_later_commits: HashMap[address, uint256]
# Recorder -> hash chain over its commits; zero before the first.
_heads: HashMap[address, bytes32]


@external
def commit(root: bytes32, count: uint256, fee_total: uint256) -> bytes32:
    """
    @notice Add one root to the caller's chain.
    @dev Nothing is checked of what is under the root: whoever a receipt belongs to does that, with an
         inclusion proof. Reverts "root" (zero) and "count" (0): there is nothing to post then.
    @param root Of the Merkle tree over the matched receipts of the interval.
    @param count Receipts under it.
    @param fee_total Sum of their fees in base units.
    @return The caller's new head.
    """
    assert root != empty(bytes32), "root"
    assert count > 0, "count"
    previous: bytes32 = self._heads[msg.sender]
    later: uint256 = 0
    if previous != empty(bytes32):
        later = self._later_commits[msg.sender] + 1
        self._later_commits[msg.sender] = later
    head: bytes32 = keccak256(abi_encode(previous, root, count, fee_total))
    self._heads[msg.sender] = head
    log Committed(
        recorder=msg.sender,
        number=later + 1,
        root=root,
        count=count,
        fee_total=fee_total,
        head=head,
    )
    return head


@external
@view
def get_head(recorder: address) -> (uint256, bytes32):
    """
    @notice How often `recorder` committed, and the head of its chain; zeros if it never did.
    """
    head: bytes32 = self._heads[recorder]
    if head == empty(bytes32):
        return 0, head
    return self._later_commits[recorder] + 1, head
