"""Catching up over many events: bounded windows, nothing missed or doubled."""

from benchmarks.bench_index import CONFIRMATIONS, ESCROW, EVENTS_PER_BLOCK, FakeNode
from hanse.chain import Rpc
from hanse.chain.chain_types import Log
from hanse.chain.escrow import Escrow
from hanse.chain.index import LOGS_PER_ROUND_MAX, EventIndex, _cut_at_block
from hanse.chain.storage import MemoryIndexStorage

EVENTS = 40_000


def open_index(node, storage):
    rpc = Rpc(node)
    return EventIndex(
        rpc, [Escrow(rpc, ESCROW).contract], storage, start_block=1, confirmations=CONFIRMATIONS
    )


def get_places(storage):
    return [(event.block_number, event.log_index) for event in storage.events]


async def test_windows_are_bounded_and_every_event_is_applied_once():
    node, storage = FakeNode(EVENTS), MemoryIndexStorage()
    index, windows = open_index(node, storage), []
    while (batch := await index.advance()) is not None:
        windows.append(len(batch.events))
        if len(windows) == 3:  # and a process that starts anew goes on where it was
            index = open_index(node, storage)
    assert max(windows) <= LOGS_PER_ROUND_MAX
    assert get_places(storage) == [
        (block, place) for block in range(1, node.blocks + 1) for place in range(EVENTS_PER_BLOCK)
    ]
    # two starts find out what the node answers; from then on few ranges are refused
    assert node.refused <= 2 * 5 + len(windows) // 4


def test_a_range_is_cut_at_a_block_and_a_block_never():
    def log(block):
        return Log(ESCROW, (), b"", block, "", "", 0)

    crowded = [log(1)] * (LOGS_PER_ROUND_MAX + 1)
    assert _cut_at_block([*crowded, log(2)], 9) == (crowded, 1)
    full = [log(1)] * (LOGS_PER_ROUND_MAX - 1)
    assert _cut_at_block([*full, log(3), log(3)], 9) == (full, 2)
    assert _cut_at_block([*full, log(3)], 9) == ([*full, log(3)], 9)
