"""Who owes what: the two durable books, and settlement on the chain.

Provider's side: `ReceiptBook` (what was admitted, served and is owed). User's side: `voucher_book`.
"""

from hanse.settlement.books.receipt_book import (
    ReceiptBook,
    decode_stored_receipt,
    open_receipt_book,
)
from hanse.settlement.books.receipt_records import (
    Admission,
    DueClaim,
    FinishedRequest,
    Outcome,
    ReceiptPage,
    SubAccountFunds,
    SubAccountState,
)

__all__ = [
    "ReceiptBook",
    "open_receipt_book",
    "decode_stored_receipt",
    "Admission",
    "Outcome",
    "FinishedRequest",
    "SubAccountFunds",
    "SubAccountState",
    "ReceiptPage",
    "DueClaim",
]
