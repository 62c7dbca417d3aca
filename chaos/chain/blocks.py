"""Blocks, the mempool and reorganisations of the chain in this process.

    chain = Chain(state, genesis, lot, now_s)
    chain.receive(raw)             # what a node does with broadcast bytes; ValueError says why not
    chain.mine()
    chain.reorganise(depth)        # the newest `depth` blocks give way to a longer branch

What it may do to a transaction at any time, because real ones do: forget it, leave it out for a
while, put a dropped block's transactions back or forget those too. What it never does is change a
block that has k others on it, or run what nobody signed.
"""

from collections.abc import Callable
from random import Random

from chaos.chain.state import Block, State
from chaos.chain.transactions import Sent, decode_transaction
from hanse.protocol.signatures import keccak, to_hex

GWEI = 10**9
REPLACEMENT_PERCENT = 110
"""Both fees of a replacement must rise by 10 %, as in geth's pool."""

TIPS_KEPT = 12
"""Former heads that a lagging or lying node may still show."""

BLOCK_TRANSACTIONS_MAX = 20

BASE_FEE_MAX_WEI = 150 * GWEI
"""Below the outbox's cap even after raises."""


class Chain:
    """One chain and its mempool.

    Attributes:
        head: the newest block.
        tips: former heads, newest last.
        pool: transactions that wait, by sender and nonce.
        held_until_s: transactions that miners leave out for now.
        blocks: the present branch by number.
        dropped: transactions of blocks that gave way, newest last.
    """

    def __init__(
        self, state: State, genesis: Block, lot: Random, now_s: Callable[[], float]
    ) -> None:
        self.state = state
        self.head = genesis
        self.tips: list[Block] = [genesis]
        self.pool: dict[tuple[str, int], Sent] = {}
        self.held_until_s: dict[str, float] = {}
        self.blocks: list[Block] = [genesis]
        self.dropped: list[Sent] = []
        self._lot = lot
        self._now_s = now_s
        self._places: dict[str, list[Block]] = {}
        self._salt = 0
        self._base_fee_wei = 5 * GWEI

    def receive(self, raw: bytes) -> str:
        """Take a transaction into the pool; its hash. Raises ValueError in a node's words."""
        sent = decode_transaction(raw)
        if sent.nonce < self.head.nonces.get(sent.sender, 0):
            raise ValueError("nonce too low")
        known = self.pool.get((sent.sender, sent.nonce))
        if known is not None:
            if known.hash == sent.hash:
                raise ValueError("already known")
            least = known.max_fee_wei * REPLACEMENT_PERCENT // 100
            least_tip = known.tip_wei * REPLACEMENT_PERCENT // 100
            if sent.max_fee_wei < least or sent.tip_wei < least_tip:
                raise ValueError("replacement transaction underpriced")
        self.pool[sent.sender, sent.nonce] = sent
        return sent.hash

    def mine(self) -> Block:
        """One more block on the head."""
        self._move_base_fee()
        block = self._build(self.head, self._choose())
        self._set_head(block)
        self.state.settle_down(block)
        return block

    def reorganise(self, depth: int, forget: float) -> int:
        """Replace the newest `depth` blocks by `depth + 1`; returns how many could be replaced.

        Args:
            depth: at most k, so that nothing confirmed changes.
            forget: the share of their transactions that no pool remembers.
        """
        ancestor = self.head.find_ancestor(self.head.number - depth)
        if ancestor is None or ancestor.parent is None:
            return 0
        dropped: Block | None = self.head
        while dropped is not None and dropped is not ancestor:
            self.blocks.pop()
            self.dropped = [*self.dropped[-20:], *dropped.sent]
            for sent in dropped.sent:
                if self._lot.random() >= forget:
                    self.pool.setdefault((sent.sender, sent.nonce), sent)
            dropped = dropped.parent
        block = ancestor
        for _ in range(depth + 1):
            # miners of the other branch saw the transactions later, or in another order
            chosen = self._choose_on(block) if self._lot.random() < 0.6 else []
            block = self._build(block, chosen)
            self._set_head(block)
        return depth

    def raise_base_fee(self, factor: int) -> None:
        """Blocks are full for a while; it falls again block by block."""
        self._base_fee_wei = min(BASE_FEE_MAX_WEI, self._base_fee_wei * factor)

    def find_mined(self, transaction_hash: str, tip: Block) -> tuple[Block, int] | None:
        """Where a transaction stands on the branch of `tip`."""
        for block in reversed(self._places.get(transaction_hash, [])):
            if self.find_block(block.number, tip) is block:
                return block, [sent.hash for sent in block.sent].index(transaction_hash)
        return None

    def find_anywhere(self, transaction_hash: str) -> tuple[Block, int] | None:
        """The same in any block that was ever mined, dropped ones included."""
        for block in self._places.get(transaction_hash, []):
            return block, [sent.hash for sent in block.sent].index(transaction_hash)
        return None

    def find_block(self, number: int, tip: Block) -> Block | None:
        """The block at a height on the branch of `tip`."""
        if number < 0 or number > tip.number:
            return None
        return tip.find_ancestor(number) or self.blocks[number]

    def _choose(self) -> list[Sent]:
        return self._choose_on(self.head)

    def _choose_on(self, parent: Block) -> list[Sent]:
        """What a miner takes: in nonce order, paying enough, not held back."""
        nonces = dict(parent.nonces)
        chosen: list[Sent] = []
        for key in sorted(self.pool):
            sent = self.pool[key]
            if sent.nonce < self.head.nonces.get(sent.sender, 0) and parent is self.head:
                del self.pool[key]
                self.held_until_s.pop(sent.hash, None)
                continue
            held = self.held_until_s.get(sent.hash, 0.0) > self._now_s()
            if sent.nonce != nonces.get(sent.sender, 0) or held:
                continue
            if sent.max_fee_wei < self._base_fee_wei or len(chosen) >= BLOCK_TRANSACTIONS_MAX:
                continue
            nonces[sent.sender] = sent.nonce + 1
            chosen.append(sent)
        self._lot.shuffle(chosen)
        return sorted(chosen, key=lambda sent: sent.nonce)  # each sender's in order

    def _build(self, parent: Block, chosen: list[Sent]) -> Block:
        number = parent.number + 1
        timestamp_s = max(parent.timestamp_s + 1, int(self._now_s()))
        ran = self.state.run_block(parent, number, timestamp_s, self._base_fee_wei, chosen)
        nonces = dict(parent.nonces)
        for sent in chosen:
            nonces[sent.sender] = sent.nonce + 1
        self._salt += 1
        text = f"{number}{parent.hash}{self._salt}{[sent.hash for sent in chosen]}"
        block_hash = to_hex(keccak(text.encode()))
        block = Block(
            number,
            block_hash,
            parent.hash,
            parent,
            timestamp_s,
            self._base_fee_wei,
            tuple(chosen),
            ran,
            nonces,
        )
        for sent in chosen:
            self._places.setdefault(sent.hash, []).append(block)
        return block

    def _set_head(self, block: Block) -> None:
        self.head = block
        self.blocks.append(block)
        self.tips.append(block)
        del self.tips[:-TIPS_KEPT]

    def _move_base_fee(self) -> None:
        factor = self._lot.uniform(0.88, 1.125)
        ceiling = max(30 * GWEI, int(self._base_fee_wei * 0.88))
        self._base_fee_wei = min(ceiling, max(GWEI, int(self._base_fee_wei * factor)))
