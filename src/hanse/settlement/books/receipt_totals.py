"""Sums over the provider's book, for people: `hanse provider status`.

    totals = await read_totals(database)

It reads every request once (about 0.1 s a million), so it belongs to no request path.
"""

from dataclasses import dataclass

from hanse.store.database import Database, Transaction

_SUB_ACCOUNTS = (
    "SELECT cumulative_fee, settled_fee, reserved, in_flight FROM receipt_sub_accounts LIMIT ?"
)
_REQUESTS = "SELECT COUNT(*), COALESCE(MAX(admitted_at), 0) FROM receipt_requests"

SUB_ACCOUNTS_SUMMED_MAX = 1_000_000
"""Sub-accounts of one provider; more than any has."""


@dataclass(frozen=True, slots=True)
class ReceiptTotals:
    """A whole book in numbers. Amounts in base units.

    Attributes:
        sub_accounts: that have ever paid.
        requests: ever admitted, those at work included.
        in_flight: at work.
        last_request_s: unix seconds of the last admission; 0 if there was none.
        fees: of all receipts.
        settled: of them, what the chain has shown as claimed.
        reserved: maximum fees of what is at work.
    """

    sub_accounts: int
    requests: int
    in_flight: int
    last_request_s: int
    fees: int
    settled: int
    reserved: int

    @property
    def due(self) -> int:
        """Owed and not seen on the chain."""
        return self.fees - self.settled


async def read_totals(database: Database) -> ReceiptTotals:
    """Sum the book of one provider; its tables must be there (`open_receipt_book`)."""

    def read(tx: Transaction) -> ReceiptTotals:
        rows = tx.find_all(_SUB_ACCOUNTS, (SUB_ACCOUNTS_SUMMED_MAX,))
        requests, last = tx.find_one(_REQUESTS) or (0, 0)
        fees, settled, reserved, in_flight = (
            sum(int(row[column]) for row in rows) for column in range(4)
        )
        return ReceiptTotals(len(rows), requests, in_flight, last, fees, settled, reserved)

    return await database.read(read)
