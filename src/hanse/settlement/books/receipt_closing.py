"""Ends requests that nobody works at any more, each with a receipt of fee 0.

`ReceiptBook` uses it after a crash, when another process's lease has ended, and for a request whose
admission was durable although the store had reported a failure.

Source: `docs/decisions/0008-receipt-book.md`, `docs/decisions/0018-postgresql.md`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from hanse.protocol.errors import InvariantError
from hanse.protocol.hashing import EMPTY_RESPONSE_HASH
from hanse.protocol.messages import FinishReason, SignedReceipt, Usage
from hanse.protocol.signatures import Address, Hash32
from hanse.settlement.books import receipt_tables as sql
from hanse.settlement.books.receipt_records import Admission, FinishedRequest, Outcome
from hanse.store.database import Transaction

IsAtWork = Callable[[Hash32, Address], bool]
"""Whether this process works at a request, by its id and signer."""

Finish = Callable[[Transaction, Admission, Outcome], FinishedRequest]


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """An admitted request without a receipt, and the process that admitted it."""

    admission: Admission
    instance: str


def close_requests(
    tx: Transaction, finish: Finish, now_s: int, is_lost: Callable[[OpenRequest], bool]
) -> list[SignedReceipt]:
    """Finish every open request that is lost; the reservations are recounted first.

    Raises:
        InvariantError: `invariant_broken` if a sub-account's row and its requests disagree.
    """
    receipts = []
    nothing = Outcome(Usage(), 0, EMPTY_RESPONSE_HASH, FinishReason.ERROR, now_s)
    for number, user, signer, in_flight, reserved in tx.find_all(sql.LIST_BUSY):
        rows = tx.find_all(sql.LIST_OPEN, (number,))
        total = sum(int(row[2]) for row in rows)
        if len(rows) != in_flight or total != int(reserved):
            raise InvariantError(
                "invariant_broken",
                f"sub-account {user} / {signer} reserves {reserved} for {in_flight} requests, "
                f"its requests at work are {len(rows)} with {total}",
            )
        for request_id, request_hash, maximum_fee, instance in rows:
            admission = Admission(number, user, signer, request_id, request_hash, int(maximum_fee))
            if is_lost(OpenRequest(admission, instance)):
                receipts.append(finish(tx, admission, nothing).signed)
    return receipts
