"""Receipts that contradict others of the user's book: evidence, kept apart and within bounds.

Source: `docs/decisions/0016-disputes.md`.
"""

from hanse.protocol.messages import SignedReceipt
from hanse.settlement.books import voucher_tables as sql
from hanse.store.database import Transaction

CONFLICTS_PER_SUB_ACCOUNT_MAX = 64
"""Kept of one sub-account, about 1 kB each: the first already takes the provider's stake."""


def keep_conflict(
    tx: Transaction,
    number: int,
    signed: SignedReceipt,
    encoded: str,
    objection: str,
    now_s: int,
    *,
    is_proof: bool = True,
) -> None:
    """Store a receipt that contradicts another one.

    Args:
        tx: the transaction.
        number: of the sub-account.
        signed: the receipt.
        encoded: its JSON.
        objection: what it contradicts.
        now_s: unix seconds.
        is_proof: whether it and the one held are two for one sequence. What proves nothing by
            itself fills half of the room at most, so that no broker can crowd a proof out.
    """
    most = CONFLICTS_PER_SUB_ACCOUNT_MAX if is_proof else CONFLICTS_PER_SUB_ACCOUNT_MAX // 2
    found = tx.find_one(sql.COUNT_CONFLICTS, (number,))
    if found is None or found[0] < most:
        values = (number, signed.receipt.sequence, encoded, objection, now_s)
        tx.execute(sql.INSERT_CONFLICT, values)
