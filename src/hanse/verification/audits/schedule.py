"""Which recorded receipts are to be audited now: the lottery applied to what the chain holds.

    plan = make_schedule(candidates, block_hashes, delay_blocks)

A receipt becomes a candidate once its record is committed; the block so many behind decides. Anyone
with the same records, the same chain and the same figures of a provider draws the same receipts, so
a draw that was passed over can be shown to others.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from hanse.protocol.commitments.lottery import (
    DELAY_BLOCKS_MIN,
    PPM,
    Exposure,
    find_audit_rate_ppm,
    get_deciding_block,
    is_drawn,
)
from hanse.protocol.signatures import Address, Hash32


class Draw(StrEnum):
    """What became of one candidate."""

    DUE = "due"
    PASSED = "passed over"
    WAITING = "waiting"


class Candidate(msgspec.Struct, frozen=True):
    """A recorded receipt.

    Attributes:
        receipt_hash: its digest, as the records' leaf has it.
        provider: who signed it.
        committed_block: that holds the commit of its record.
        exposure: what its provider could gain and lose.
    """

    receipt_hash: Hash32
    provider: Address
    committed_block: int
    exposure: Exposure


class Scheduled(msgspec.Struct, frozen=True):
    """One candidate drawn, or not.

    Attributes:
        candidate: what was drawn.
        rate_ppm: at which.
        is_deterred: False if no rate keeps this provider from gaining: it lacks stake.
        deciding_block: whose hash decides.
        draw: what it says.
    """

    candidate: Candidate
    rate_ppm: int
    is_deterred: bool
    deciding_block: int
    draw: Draw


def make_schedule(
    candidates: Sequence[Candidate],
    block_hashes: Mapping[int, Hash32],
    delay_blocks: int = DELAY_BLOCKS_MIN,
) -> list[Scheduled]:
    """Draw all candidates; those whose deciding block is not known yet wait.

    A provider that no rate deters is audited always: that does not deter it either, but it is
    found.

    The caller still owes: that the records are on the chain in these blocks, and that the hashes
    are of confirmed blocks.
    """
    scheduled = []
    for one in candidates:
        rate = find_audit_rate_ppm(one.exposure)
        number = get_deciding_block(one.committed_block, delay_blocks)
        found = block_hashes.get(number)
        rate_ppm = PPM if rate is None else rate
        draw = Draw.WAITING
        if found is not None:
            draw = Draw.DUE if is_drawn(found, one.receipt_hash, rate_ppm) else Draw.PASSED
        scheduled.append(Scheduled(one, rate_ppm, rate is not None, number, draw))
    return scheduled
