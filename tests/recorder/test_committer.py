"""A recorder that was away while its commit was confirmed, and a node that forgets old states."""

from types import SimpleNamespace
from typing import Any

import pytest

from hanse.chain.storage import TransactionState
from hanse.protocol.errors import InvariantError, TransientError
from hanse.recorder.committer import Committer
from hanse.recorder.metrics import RecorderMetrics

MINED_IN, HEAD, CONFIRMATIONS, KEPT_BLOCKS = 74, 111, 2, 5
HEAD_HASH = "0x" + "11" * 32


class ForgetfulNode:
    """Knows the recorder's head in its newest blocks only, as anvil does after a restart."""

    def __init__(self, number: int) -> None:
        self._number = number

    async def fetch_head(self) -> Any:
        return SimpleNamespace(number=HEAD)

    def commit(self, *_: object) -> str:
        return "a call"

    async def read_head(self, recorder: str, *, block: int) -> Any:
        if not HEAD - KEPT_BLOCKS < block <= HEAD:
            raise TransientError("chain_unavailable", f"the state of block {block} is not here")
        return SimpleNamespace(number=self._number, head=bytes.fromhex(HEAD_HASH[2:]))


class OpenBook:
    """One commit that was sent and not confirmed here."""

    def __init__(self) -> None:
        self.confirmed: list[tuple[int, str, int]] = []

    async def find_last_commit(self) -> None:
        return None

    async def prepare_commit(self) -> Any:
        root = "0x" + "22" * 32
        return SimpleNamespace(number=1, head=HEAD_HASH, root=root, count=3, fee_total=9)

    async def confirm_commit(self, number: int, transaction: str, block: int) -> None:
        self.confirmed.append((number, transaction, block))


class ConfirmedOutbox:
    address = "0x" + "33" * 20

    async def enqueue(self, purpose: str, call: object) -> Any:
        return SimpleNamespace(
            state=TransactionState.CONFIRMED,
            block_number=MINED_IN,
            transaction_hash="0xabc",
            gas_used=35_000,
            reason="",
        )


def open_committer(node: ForgetfulNode, book: OpenBook) -> Committer:
    parts: tuple[Any, ...] = (book, node, ConfirmedOutbox(), node)
    return Committer(
        *parts,
        interval_blocks=2,
        confirmations=CONFIRMATIONS,
        metrics=RecorderMetrics(),
        monotonic=lambda: 0.0,
    )


async def test_a_commit_is_confirmed_though_the_node_forgot_its_block():
    book = OpenBook()
    commit = await open_committer(ForgetfulNode(1), book).step()
    assert commit is not None
    assert book.confirmed == [(1, "0xabc", MINED_IN)]


async def test_another_process_with_the_same_key_is_still_noticed():
    book = OpenBook()
    with pytest.raises(InvariantError, match="another process uses this key"):
        await open_committer(ForgetfulNode(2), book).step()
    assert book.confirmed == []
