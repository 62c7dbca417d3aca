"""An EVM that can stand at any recent block of any branch, running the contracts' real bytecode.

pyrevm keeps one journal over one committed state. The committed state stays `KEPT_BLOCKS` behind
the head; blocks above it lie in the journal, each transaction behind a checkpoint, and are taken
back or run again when a view of another block is asked for. Checkpoints must be taken back one by
one, newest first: pyrevm's depth counts them.

Gas is not charged and not limited: running a block again finds warm storage.
"""

import re
from dataclasses import dataclass
from typing import Any

import pyrevm

from chaos.chain.transactions import Sent

KEPT_BLOCKS = 24
"""Blocks that can still be asked about or reorganised away, with room above k."""

GAS_USED = 100_000
"""What every transaction says that it used; see the module."""


@dataclass(frozen=True)
class Emitted:
    """One log: address, topics, data."""

    address: str
    topics: tuple[bytes, ...]
    data: bytes


@dataclass(frozen=True)
class Ran:
    """What one transaction or call did; `output` is what it returned or reverted with."""

    succeeded: bool
    output: bytes
    logs: tuple[Emitted, ...] = ()


@dataclass(eq=False)
class Block:
    """One block of one branch. `nonces` are those after it; `ran` belongs to `sent`.

    `parent` is None once the state before it is committed.
    """

    number: int
    hash: str
    parent_hash: str
    parent: "Block | None"
    timestamp_s: int
    base_fee_wei: int
    sent: tuple[Sent, ...]
    ran: tuple[Ran, ...]
    nonces: dict[str, int]

    def find_ancestor(self, number: int) -> "Block | None":
        """The block at this height of its branch; None above it or before what is kept."""
        block: Block | None = self
        while block is not None and block.number > number:
            block = block.parent
        return block if block is not None and block.number == number else None


class State:
    """The EVM. `evm` has the contracts deployed and committed; `base` is the block of that."""

    def __init__(self, evm: Any, base: Block) -> None:
        self._evm = evm
        self._base = base
        self._above: list[tuple[Block, list[Any]]] = []

    def run_block(
        self, parent: Block, number: int, timestamp_s: int, base_fee_wei: int, sent: list[Sent]
    ) -> tuple[Ran, ...]:
        """What these transactions do on top of `parent`."""
        self._stand_at(parent)
        self._set_block(number, timestamp_s, base_fee_wei)
        ran, checkpoints = self._run_all(sent)
        self._take_back(checkpoints)
        return ran

    def call(self, block: Block, sender: str, to: str, data: bytes) -> Ran:
        """A call on the state after `block`, which leaves nothing."""
        self._stand_at(block)
        self._set_block(block.number, block.timestamp_s, block.base_fee_wei)
        checkpoint = self._evm.snapshot()
        ran = self._run(sender, to, data)
        self._evm.revert(checkpoint)
        self._evm.reset_transient_storage()
        return ran

    def get_code(self, address: str) -> bytes:
        """Deployed code; nothing is deployed after the first block."""
        return bytes(self._evm.get_code(address) or b"").rstrip(b"\0")

    def settle_down(self, head: Block) -> None:
        """Commit what is far below the head; no branch may begin below that any more."""
        if head.number - self._base.number < 2 * KEPT_BLOCKS:
            return
        self._unwind(0)
        target = head.find_ancestor(head.number - KEPT_BLOCKS)
        assert target is not None
        for block in _list_path(self._base, target):
            self._set_block(block.number, block.timestamp_s, block.base_fee_wei)
            for sent in block.sent:
                checkpoint = self._evm.snapshot()
                if self._run(sent.sender, sent.to, sent.data).succeeded:
                    self._evm.commit()
                else:
                    self._evm.revert(checkpoint)
                self._evm.reset_transient_storage()
        self._base = target
        target.parent = None

    def _stand_at(self, block: Block) -> None:
        if block is (self._above[-1][0] if self._above else self._base):
            return
        path = _list_path(self._base, block)
        same = 0
        while same < min(len(path), len(self._above)) and self._above[same][0] is path[same]:
            same += 1
        self._unwind(same)
        for wanted in path[same:]:
            self._set_block(wanted.number, wanted.timestamp_s, wanted.base_fee_wei)
            ran, checkpoints = self._run_all(list(wanted.sent))
            self._above.append((wanted, checkpoints))
            assert ran == wanted.ran, f"block {wanted.number} ran differently the second time"

    def _unwind(self, length: int) -> None:
        while len(self._above) > length:
            self._take_back(self._above.pop()[1])

    def _take_back(self, checkpoints: list[Any]) -> None:
        for checkpoint in reversed(checkpoints):
            self._evm.revert(checkpoint)

    def _run_all(self, sent: list[Sent]) -> tuple[tuple[Ran, ...], list[Any]]:
        results, checkpoints = [], []
        for one in sent:
            checkpoint = self._evm.snapshot()
            ran = self._run(one.sender, one.to, one.data)
            if ran.succeeded:
                checkpoints.append(checkpoint)
            else:
                self._evm.revert(checkpoint)
            self._evm.reset_transient_storage()
            results.append(ran)
        return tuple(results), checkpoints

    def _run(self, sender: str, to: str, data: bytes) -> Ran:
        try:
            output = self._evm.message_call(sender, to, calldata=data)
        except RuntimeError as error:
            match = re.search(r"output: 0x([0-9a-f]*)", str(error))
            return Ran(False, bytes.fromhex(match[1]) if match else b"")
        logs = tuple(
            Emitted(log.address.lower(), tuple(bytes(t) for t in log.data[0]), bytes(log.data[1]))
            for log in self._evm.result.logs
        )
        return Ran(True, bytes(output), logs)

    def _set_block(self, number: int, timestamp_s: int, base_fee_wei: int) -> None:
        self._evm.set_block_env(pyrevm.BlockEnv(number=number, timestamp=timestamp_s, basefee=0))


def _list_path(base: Block, block: Block) -> list[Block]:
    """The blocks after `base` up to `block`, oldest first."""
    path: list[Block] = []
    at: Block | None = block
    while at is not base:
        assert at is not None, f"block {block.number} does not stand on the kept state"
        path.append(at)
        at = at.parent
    return path[::-1]
