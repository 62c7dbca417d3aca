"""Letting go of the keys that sealed answers are opened with.

The broker keeps the end of an answer sealed under a key that only the user's side has, for an hour
at most, for a caller that lost it. Also an answer that came whole may be lost on its last step, to
the application. Once brokers keep it no longer, its key could only serve somebody who copied the
broker's disk in that hour and the user's later: `ANSWER_RETAINED_S` after the receipt came it goes.

Source: `docs/protocol.md`, section "Resume".
"""

from hanse.protocol.limits import ANSWER_RETAINED_S
from hanse.store.database import Transaction

RECEIPTS_SWEPT_MAX = 5_000
"""Receipts looked at in one round, some 10 ms; the rest comes in the next."""

NO_KEY = b""

STEP = """
    CREATE TABLE voucher_keys_swept (until INTEGER NOT NULL)
"""
"""Up to which time of receipt the keys are gone."""

_FIND_MARK = "SELECT until FROM voucher_keys_swept"
_INSERT_MARK = "INSERT INTO voucher_keys_swept (until) VALUES (?)"
_UPDATE_MARK = "UPDATE voucher_keys_swept SET until = ?"
_FORGET = "UPDATE vouchers SET answer_key = ? WHERE request_hash = ?"
_LIST_OLD = (
    "SELECT request_hash, received_at FROM voucher_receipts "
    "WHERE received_at >= ? AND received_at <= ? ORDER BY received_at LIMIT ?"
)


def sweep_keys(tx: Transaction, now_s: int) -> int:
    """Delete the keys of receipts that came longer ago than brokers keep answers.

    Returns:
        How many receipts were looked at.
    """
    mark = tx.find_one(_FIND_MARK)
    since_s, until_s = (mark[0] if mark else 0), now_s - ANSWER_RETAINED_S - 1
    rows = tx.find_all(_LIST_OLD, (since_s, until_s, RECEIPTS_SWEPT_MAX))
    for request_hash, _ in rows:
        tx.execute(_FORGET, (NO_KEY, request_hash))
    if not rows:
        return 0
    # A full round may have ended within a second: that second is looked at again.
    is_full = len(rows) == RECEIPTS_SWEPT_MAX and rows[-1][1] > since_s
    after_s = rows[-1][1] if is_full else rows[-1][1] + 1
    tx.execute(_UPDATE_MARK if mark else _INSERT_MARK, (after_s,))
    return len(rows)
