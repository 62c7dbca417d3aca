"""Receipts that are new in a side's own book, and the entries that it submits for them.

The provider's source reads the receipt book, the user's the voucher book; both follow a cursor for
each sub-account, so a receipt is found once, in sequence. The user's side takes only acknowledged
receipts: what it has not checked it does not vouch for.

Source: `hanse.settlement.books.receipt_tables`, `voucher_tables`.
"""

import msgspec

from hanse.protocol.eip712 import Domain
from hanse.protocol.messages import SignedReceipt
from hanse.protocol.records import RecordEntry
from hanse.protocol.signatures import Address, Hash32, to_hex
from hanse.protocol.wire import receipt_from_json
from hanse.store.database import Row, Transaction

RECEIPTS_PER_ROUND_MAX = 500
"""Receipts read at once: 50 ms of decoding and hashing."""

_RECEIPT_SUB_ACCOUNTS = (
    "SELECT s.number, s.user_address, s.signer, s.sequence, COALESCE(c.sequence, 0) "
    "FROM receipt_sub_accounts s LEFT JOIN record_cursors c "
    "ON c.user_address = s.user_address AND c.signer = s.signer AND c.provider = ? "
    "WHERE s.sequence > COALESCE(c.sequence, 0) LIMIT ?"
)
_RECEIPTS = (
    "SELECT receipt FROM receipt_requests WHERE sub_account = ? AND sequence > ? "
    "ORDER BY sequence LIMIT ?"
)
_VOUCHER_SUB_ACCOUNTS = (
    "SELECT s.number, s.provider, s.acknowledged, COALESCE(c.sequence, 0) "
    "FROM voucher_sub_accounts s LEFT JOIN record_cursors c "
    "ON c.user_address = s.user_address AND c.signer = s.signer AND c.provider = s.provider "
    "WHERE s.user_address = ? AND s.signer = ? AND s.acknowledged > COALESCE(c.sequence, 0) LIMIT ?"
)
_VOUCHER_RECEIPTS = (
    "SELECT receipt FROM voucher_receipts WHERE sub_account = ? AND sequence > ? "
    "AND is_acknowledged = 1 ORDER BY sequence LIMIT ?"
)


class ProviderReceipts:
    """Receipts that a provider signed, out of its receipt book's tables."""

    def __init__(self, provider: Address) -> None:
        self._provider = provider

    def find_new(self, tx: Transaction) -> list[tuple[SignedReceipt, ...]]:
        """See `ReceiptSource`."""
        groups, left = [], RECEIPTS_PER_ROUND_MAX
        for number, _, _, _, after in self._list_sub_accounts(tx):
            rows = tx.find_all(_RECEIPTS, (number, after, left))
            if rows:
                groups.append(_to_receipts(rows))
            left -= len(rows)
            if left <= 0:
                break
        return groups

    def list_passed(self, tx: Transaction) -> list[tuple[Address, Address, Address, int]]:
        """Sub-accounts that began where the chain stood: what is below was another book's."""
        return [
            (user, self._provider, signer, sequence)
            for number, user, signer, sequence, after in self._list_sub_accounts(tx)
            if not tx.find_all(_RECEIPTS, (number, after, 1))
        ]

    def _list_sub_accounts(self, tx: Transaction) -> list[Row]:
        return tx.find_all(_RECEIPT_SUB_ACCOUNTS, (self._provider, RECEIPTS_PER_ROUND_MAX))


class UserReceipts:
    """Receipts that a user's side acknowledged, out of its voucher book's tables."""

    def __init__(self, user: Address, signer: Address) -> None:
        self._user, self._signer = user, signer

    def find_new(self, tx: Transaction) -> list[tuple[SignedReceipt, ...]]:
        """See `ReceiptSource`."""
        groups, left = [], RECEIPTS_PER_ROUND_MAX
        for number, _, _, after in self._list_sub_accounts(tx):
            rows = tx.find_all(_VOUCHER_RECEIPTS, (number, after, left))
            if rows:
                groups.append(_to_receipts(rows))
            left -= len(rows)
            if left <= 0:
                break
        return groups

    def list_passed(self, tx: Transaction) -> list[tuple[Address, Address, Address, int]]:
        """Sub-accounts that began where the chain stood: what is below was another book's."""
        return [
            (self._user, provider, self._signer, sequence)
            for number, provider, sequence, after in self._list_sub_accounts(tx)
            if not tx.find_all(_VOUCHER_RECEIPTS, (number, after, 1))
        ]

    def _list_sub_accounts(self, tx: Transaction) -> list[Row]:
        return tx.find_all(
            _VOUCHER_SUB_ACCOUNTS, (self._user, self._signer, RECEIPTS_PER_ROUND_MAX)
        )


def get_receipt_digest(signed: SignedReceipt, domain: Domain) -> Hash32:
    """What the receipt key signed, as the leaf names it."""
    return to_hex(domain.digest(signed.receipt.struct_hash()))


def to_record_entry(signed: SignedReceipt, domain: Domain, trace_hash: Hash32) -> RecordEntry:
    """A receipt as the entry that a side submits for it."""
    receipt = signed.receipt
    return RecordEntry(
        receipt.user,
        receipt.provider,
        receipt.signer,
        receipt.sequence,
        get_receipt_digest(signed, domain),
        receipt.fee,
        trace_hash,
    )


def _to_receipts(rows: list[Row]) -> tuple[SignedReceipt, ...]:
    return tuple(receipt_from_json(msgspec.json.decode(row[0])) for row in rows)
