"""Records: each recorder's hash chain of roots.

Source: `Records.vy`; docs/decisions/0013-records-heads.md.
"""

from dataclasses import replace

from hanse.protocol.eip712 import hash_word, uint_word
from hanse.protocol.ledger.refusals import refuse
from hanse.protocol.ledger.state import NO_RECORDS, Emitted, Ledger, RecordsHead, Step
from hanse.protocol.signatures import ZERO_HASH, Address, Hash32, keccak, to_hex


def apply_commit(
    ledger: Ledger, recorder: Address, root: Hash32, count: int, fee_total: int
) -> Step:
    """Add one root to the recorder's own chain. Refuses "root", "count"."""
    if root == ZERO_HASH:
        raise refuse("root", "the root is zero")
    if count <= 0:
        raise refuse("count", f"{count} receipts under the root, at least 1 is needed")
    before = ledger.records.get(recorder, NO_RECORDS)
    chained = hash_word(before.head) + hash_word(root) + uint_word(count) + uint_word(fee_total)
    after = RecordsHead(before.number + 1, to_hex(keccak(chained)))
    fields = {
        "recorder": recorder,
        "number": after.number,
        "root": root,
        "count": count,
        "fee_total": fee_total,
        "head": after.head,
    }
    return Step(
        replace(ledger, records={**ledger.records, recorder: after}),
        (Emitted("Committed", fields),),
    )
