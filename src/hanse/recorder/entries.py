"""One entry taken into a recorder's book, inside the book's transaction.

| an entry is | means |
| --- | --- |
| waiting | the other side's is missing, or is not equal; `reason` says which |
| matched | it has a leaf; it will be in the next commit, or is in one that is not confirmed yet |
| committed | its commit is confirmed; it has an inclusion proof |
| refused | another receipt, or trace, of its sequence is matched; too many of its sub-account \
wait; its provider or sub-account has had its share |

The rules are `hanse.protocol.records.matching`; the tables are the recorder book's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from hanse.protocol.errors import RequestError
from hanse.protocol.limits import RECORD_SEQUENCE_MAX
from hanse.protocol.records import Reason, RecordEntry, Side, find_mismatch
from hanse.protocol.signatures import parse_address
from hanse.protocol.wire.fields import parse_count
from hanse.recorder import tables as sql
from hanse.recorder.settings import RecorderLimits
from hanse.recorder.shares import Shares
from hanse.store.database import Row, Transaction

WAITING_PER_SUB_ACCOUNT_MAX = 1_000
"""Unmatched entries of one sub-account and side. Honest sides differ by what is in flight (1,024)
and by one round of submissions; whoever wants to fill a recorder has to fund sub-accounts."""


_BEYOND = "0xg"
"""Sorts after every address."""


class EntryState(StrEnum):
    """What became of an entry; see the module's table."""

    WAITING = "waiting"
    MATCHED = "matched"
    COMMITTED = "committed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class TakenEntry:
    """What became of one submitted entry; `commit_by` is the block promised for a matched one."""

    state: EntryState
    reason: Reason | None = None
    commit_by: int = 0


@dataclass(frozen=True, slots=True)
class WaitingEntry:
    """One unmatched entry, whose it is, and why it is not matched."""

    side: Side
    entry: RecordEntry
    reason: Reason


def take_entries(
    tx: Transaction,
    side: Side,
    entries: Sequence[RecordEntry],
    commit_by: int,
    now_s: int,
    limits: RecorderLimits,
) -> list[TakenEntry]:
    """Take a submission's entries, within the shares of their parties."""
    shares = Shares(tx, limits, now_s)
    taken = [_take_entry(tx, side, entry, commit_by, now_s, shares) for entry in entries]
    shares.store()
    return taken


def _take_entry(
    tx: Transaction, side: Side, entry: RecordEntry, commit_by: int, now_s: int, shares: Shares
) -> TakenEntry:
    """Match an entry, or let it wait; taking it again changes nothing."""
    leaf = tx.find_one(sql.FIND_LEAF, entry.key)
    if leaf is not None:
        # Its own trace too: a promise over an entry that is not the leaf's would be a lie of ours.
        trace_hash = leaf[4] if side is Side.USER else leaf[5]
        if (leaf[0], int(leaf[1]), trace_hash) != (
            entry.receipt_digest,
            entry.fee,
            entry.trace_hash,
        ):
            return TakenEntry(EntryState.REFUSED, Reason.RECORDED_DIFFERENTLY)
        state = EntryState.COMMITTED if leaf[3] else EntryState.MATCHED
        return TakenEntry(state, commit_by=leaf[2])
    other = _find_waiting(tx, entry, side.other)
    user, provider = (entry, other) if side is Side.USER else (other, entry)
    reason = find_mismatch(user, provider)
    if reason is None:
        assert user is not None  # else there were a reason
        assert provider is not None
        if not shares.take(entry):
            return TakenEntry(EntryState.REFUSED, Reason.OVER_SHARE)
        tx.execute(sql.DELETE_WAITING, entry.key)
        hashes = (user.trace_hash, provider.trace_hash)
        tx.execute(
            sql.INSERT_LEAF, (*entry.key, entry.receipt_digest, str(entry.fee), *hashes, commit_by)
        )
        return TakenEntry(EntryState.MATCHED, commit_by=commit_by)
    if _find_waiting(tx, entry, side) is None:
        count = tx.find_one(sql.COUNT_WAITING, (*entry.key[:3], int(side)))
        if count is not None and int(count[0]) >= WAITING_PER_SUB_ACCOUNT_MAX:
            return TakenEntry(EntryState.REFUSED, Reason.TOO_MANY_WAITING)
    tx.execute(
        sql.UPSERT_WAITING,
        (
            *entry.key[:3],
            int(side),
            entry.sequence,
            entry.receipt_digest,
            str(entry.fee),
            entry.trace_hash,
            now_s,
        ),
    )
    return TakenEntry(EntryState.WAITING, reason)


def _find_waiting(tx: Transaction, entry: RecordEntry, side: Side) -> RecordEntry | None:
    row = tx.find_one(sql.FIND_WAITING, (*entry.key[:3], int(side), entry.sequence))
    return (
        msgspec.structs.replace(entry, receipt_digest=row[0], fee=int(row[1]), trace_hash=row[2])
        if row
        else None
    )


def parse_place(after: str) -> tuple[str, str, int]:
    """A place in a list of waiting entries, `PARTY[.USER.SEQUENCE]`; empty for its start.

    Raises:
        RequestError: `invalid_request`.
    """
    if not after:
        return "", "", 0
    names = after.split(".")
    party = parse_address(names[0], "after")
    if len(names) == 1:
        return party, _BEYOND, 0
    if len(names) != 3:
        raise RequestError("invalid_request", f"after {after[:120]!r} is no place", param="after")
    sequence = parse_count(names[2], RECORD_SEQUENCE_MAX, "after")
    return party, parse_address(names[1], "after"), sequence


def cut_page(rows: Sequence[Row], is_user: bool, most: int) -> tuple[list[WaitingEntry], str]:
    """At most `most` rows as entries, of whole keys, and the place to go on after.

    Args:
        rows: in their order, and one more than `most` if there are more.
        is_user: the list is of a signer, so the other party is the provider.
        most: rows of a page.
    """
    if len(rows) <= most:
        return _explain_waiting(rows), ""
    last = rows[-1][:4]  # its key may be cut in two, and then lack a side that is there
    rows = [row for row in rows if row[:4] != last]
    user, provider, signer, sequence = rows[-1][:4]
    return _explain_waiting(rows), f"{provider if is_user else signer}.{user}.{sequence}"


def _explain_waiting(rows: Sequence[Row]) -> list[WaitingEntry]:
    """Rows as entries, each with what stands against its match."""
    by_key: dict[tuple[object, ...], dict[Side, RecordEntry]] = {}
    for row in rows:
        entry = RecordEntry(row[0], row[1], row[2], row[3], row[5], int(row[6]), row[7])
        by_key.setdefault(entry.key, {})[Side(row[4])] = entry
    waiting = []
    for sides in by_key.values():
        reason = find_mismatch(sides.get(Side.USER), sides.get(Side.PROVIDER))
        assert reason is not None  # equal ones were matched when the second came
        waiting += [WaitingEntry(side, entry, reason) for side, entry in sides.items()]
    return waiting
