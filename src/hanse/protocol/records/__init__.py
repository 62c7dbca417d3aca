"""Records: receipts that both sides hold, matched, and committed in a Merkle root.

messages   RecordEntry, Submission, Promise, and the sides that sign them
matching   when two entries are one record, and why they are not
proofs     leaf, order, root, hash chain of heads, inclusion proofs
wire       entries, submissions and promises as JSON; proof_wire: commits and proofs
verify     checks of submissions and promises

Both sides of a request submit what they hold of it to a recorder, each under its own signature. The
recorder matches, promises a block, and commits one root for all providers. Nobody has to believe
it: an entry is recorded once its inclusion proof leads to a head that the chain shows.

Source: `docs/records.md`; `docs/decisions/0014-records.md`.
"""

from hanse.protocol.records.matching import Reason, find_mismatch
from hanse.protocol.records.messages import (
    Promise,
    PromiseKind,
    RecordEntry,
    Side,
    SignedPromise,
    SignedSubmission,
    Submission,
    hash_entries,
)
from hanse.protocol.records.proofs import (
    Commit,
    Leaf,
    RecordProof,
    apply_commit,
    get_leaf,
    get_record_root,
    verify_commit,
    verify_record,
)

__all__ = [
    "Commit",
    "Leaf",
    "Promise",
    "PromiseKind",
    "Reason",
    "RecordEntry",
    "RecordProof",
    "Side",
    "SignedPromise",
    "SignedSubmission",
    "Submission",
    "apply_commit",
    "find_mismatch",
    "get_leaf",
    "get_record_root",
    "hash_entries",
    "verify_commit",
    "verify_record",
]
