"""The user's book inside one transaction: rows to books and back, receipts counted in order.

`VoucherBook` calls these from its writes. Nothing here is public beyond this package.

Source: `docs/protocol.md`, sections "Cumulative vouchers" and "Resume".
"""

from typing import NamedTuple

import msgspec

from hanse.protocol.books import UserBook, apply_acknowledgement, apply_release
from hanse.protocol.messages import Request, SignedReceipt, SignedVoucher, Voucher
from hanse.protocol.signatures import Hash32
from hanse.protocol.wire import encode_receipt_json, offer_from_json, receipt_from_json
from hanse.settlement.books import voucher_tables as sql
from hanse.settlement.books.receipt_records import SubAccountFunds
from hanse.settlement.books.voucher_conflicts import keep_conflict
from hanse.settlement.books.voucher_records import (
    StoredReceipt,
    StoredVoucher,
    SubAccountBook,
    SubAccountKey,
    Verification,
    VoucherState,
)
from hanse.store.database import Row, Transaction


class BookRow(msgspec.Struct, frozen=True):
    """One sub-account's row. `held` counts receipts whose predecessors are missing."""

    number: int
    book: UserBook
    held: int
    disputed: str
    key: SubAccountKey


def apply_receipt(
    tx: Transaction, signed: SignedReceipt, verification: Verification, reason: str, now_s: int
) -> tuple[UserBook, str]:
    """The book afterwards, and what speaks against the receipt ("" if nothing)."""
    receipt = signed.receipt
    names = (receipt.request_hash, receipt.user, receipt.provider, receipt.signer)
    found = tx.find_one(sql.FIND_SUB_ACCOUNT_AND_VOUCHER, names)
    if found is None:
        return UserBook(), "the receipt is for a sub-account that nothing was signed for here"
    row, voucher = to_row(found), found[-4:] if found[-4] is not None else None
    is_adopted = voucher is None and verification is Verification.ADOPTED
    if not is_adopted and (voucher is None or voucher[3] != row.number):
        return row.book, f"no request {receipt.request_hash} was signed here for this sub-account"
    # adopted ones come in order, and no voucher of this book bounds them
    next_held = row.book.acknowledged + row.held + 1
    if receipt.sequence > (next_held if is_adopted else row.book.highest_sequence_max):
        signed_for = f"signed were {row.book.highest_sequence_max} requests"
        return row.book, f"the receipt has sequence {receipt.sequence}, {signed_for}"
    encoded = encode_receipt_json(signed).decode()
    is_certainly_new = row.held == 0 and receipt.sequence > row.book.acknowledged
    known = (
        None
        if is_certainly_new
        else tx.find_one(sql.FIND_RECEIPT_AT, (row.number, receipt.sequence))
    )
    if known is not None:
        # signed twice in other words is no contradiction: the contract compares what is said
        other = receipt_from_json(msgspec.json.decode(known[0])) if known[0] != encoded else signed
        if other.receipt != receipt:
            objection = f"two different receipts for sequence {receipt.sequence}"
            keep_conflict(tx, row.number, signed, encoded, objection, now_s)
            update_row(tx, msgspec.structs.replace(row, disputed=objection))
            return row.book, objection
        _improve_verification(tx, row, receipt.sequence, known[1], verification, reason)
        return row.book, ""
    if receipt.sequence <= row.book.acknowledged:
        return row.book, (
            f"the receipt has sequence {receipt.sequence}, "
            f"this book began after it (at {row.book.acknowledged} or later)"
        )
    if voucher is not None and voucher[1] == VoucherState.RECEIPTED:
        objection = f"a second receipt, of sequence {receipt.sequence}, for one request"
        keep_conflict(tx, row.number, signed, encoded, objection, now_s, is_proof=False)
        update_row(tx, msgspec.structs.replace(row, disputed=objection))
        return row.book, objection
    reserved = _insert_receipt(tx, row, signed, encoded, voucher, verification, reason, now_s)
    held = _Held(receipt.fee, receipt.cumulative_fee, reserved, verification)
    return _advance(tx, msgspec.structs.replace(row, held=row.held + 1), receipt.sequence, held)


class _Held(NamedTuple):
    """A receipt that waits to be acknowledged; `reserved` is None if nothing is in flight."""

    fee: int
    cumulative_fee: int
    reserved: int | None
    verification: str


def _insert_receipt(
    tx: Transaction,
    row: BookRow,
    signed: SignedReceipt,
    encoded: str,
    voucher: Row | None,
    verification: Verification,
    reason: str,
    now_s: int,
) -> int | None:
    """Store a receipt; returns what its request holds in flight."""
    receipt = signed.receipt
    request_id = voucher[0] if voucher else None
    # What it still holds in flight; a released or adopted request holds nothing.
    reserved = voucher[2] if voucher and voucher[1] == VoucherState.ISSUED else None
    tx.execute(
        sql.INSERT_RECEIPT,
        (
            row.number,
            receipt.sequence,
            request_id,
            receipt.request_hash,
            encoded,
            str(receipt.fee),
            str(receipt.cumulative_fee),
            reserved,
            verification,
            reason,
            int(receipt.sequence == row.book.acknowledged + 1),
            now_s,
        ),
    )
    if request_id is not None:
        tx.execute(sql.UPDATE_RECEIPTED, (reason, receipt.sequence, receipt.request_hash))
    return None if reserved is None else int(reserved)


def _advance(tx: Transaction, row: BookRow, latest: int, in_hand: _Held) -> tuple[UserBook, str]:
    """Acknowledge every held receipt that is next in line."""
    book, held, objection = row.book, row.held, ""
    while held > 0:
        sequence = book.acknowledged + 1
        found = in_hand if sequence == latest else _find_held(tx, row.number, sequence)
        if found is None:
            break
        objection = _find_objection(book, sequence, found)
        if objection:
            tx.execute(sql.UPDATE_ACKNOWLEDGED, (0, row.number, sequence))
            break
        book = apply_acknowledgement(book, maximum_fee=found.reserved, fee=found.fee)
        book = msgspec.structs.replace(  # adopted ones were signed for too, but not here
            book,
            highest_cumulative_max=max(book.highest_cumulative_max, book.acknowledged_fee),
            highest_sequence_max=max(book.highest_sequence_max, book.acknowledged),
        )
        held -= 1
        if sequence != latest:
            tx.execute(sql.UPDATE_ACKNOWLEDGED, (1, row.number, sequence))
    disputed = objection or row.disputed
    after = msgspec.structs.replace(row, book=book, held=held, disputed=disputed)
    update_row(tx, after)
    return book, objection


def _find_held(tx: Transaction, number: int, sequence: int) -> _Held | None:
    found = tx.find_one(sql.FIND_RECEIPT_AT, (number, sequence))
    if found is None:
        return None
    reserved = None if found[5] is None else int(found[5])
    return _Held(int(found[3]), int(found[4]), reserved, found[1])


def _find_objection(book: UserBook, sequence: int, held: _Held) -> str:
    """What speaks against acknowledging the next receipt, "" if nothing."""
    if held.cumulative_fee != book.acknowledged_fee + held.fee:
        return (
            f"receipt {sequence} says {held.cumulative_fee} in all, the {book.acknowledged} before "
            f"it and its fee make {book.acknowledged_fee + held.fee}"
        )
    is_signed_for = held.cumulative_fee <= book.highest_cumulative_max
    if not is_signed_for and held.verification != Verification.ADOPTED:
        return (
            f"receipt {sequence} says {held.cumulative_fee} in all, "
            f"signed were {book.highest_cumulative_max}"
        )
    return ""


def _improve_verification(
    tx: Transaction, row: BookRow, sequence: int, before: str, now: Verification, reason: str
) -> None:
    known_better = before in (
        Verification.VERIFIED,
        Verification.MISMATCHED,
        Verification.UNCOMMITTED,
    )
    if now != before and not known_better and now is not Verification.ADOPTED:
        tx.execute(sql.UPDATE_VERIFICATION, (now, reason, row.number, sequence))


def apply_released(tx: Transaction, request_id: Hash32, reason: str) -> UserBook | None:
    """Take an issued voucher out of flight; None if it is not in flight."""
    voucher = tx.find_one(sql.FIND_STATE, (request_id,))
    if voucher is None or voucher[1] != VoucherState.ISSUED:
        return None
    found = tx.find_one(sql.FIND_SUB_ACCOUNT_BY_NUMBER, (voucher[3],))
    assert found is not None  # a foreign key
    row = to_row(found)
    after = msgspec.structs.replace(row, book=apply_release(row.book, maximum_fee=int(voucher[2])))
    update_row(tx, after)
    tx.execute(sql.UPDATE_STATE, (VoucherState.RELEASED, reason, request_id))
    return after.book


def find_row(tx: Transaction, key: SubAccountKey) -> BookRow | None:
    """The sub-account's row, or None."""
    found = tx.find_one(sql.FIND_SUB_ACCOUNT, (key.user, key.provider, key.signer))
    return to_row(found) if found else None


def open_row(tx: Transaction, key: SubAccountKey, funds: SubAccountFunds) -> BookRow:
    """Begin where the chain stands: what was claimed before is receipted and paid."""
    claimed = str(funds.claimed)
    tx.execute(
        sql.INSERT_SUB_ACCOUNT,
        (key.user, key.provider, key.signer, funds.sequence, claimed, claimed, funds.sequence),
    )
    row = find_row(tx, key)
    assert row is not None  # just inserted
    return row


def update_row(tx: Transaction, row: BookRow) -> None:
    """Store a changed row."""
    book = row.book
    tx.execute(
        sql.UPDATE_SUB_ACCOUNT,
        (
            book.acknowledged,
            str(book.acknowledged_fee),
            book.in_flight,
            str(book.in_flight_fee),
            str(book.highest_cumulative_max),
            book.highest_sequence_max,
            row.held,
            row.disputed,
            row.number,
        ),
    )


def to_row(found: Row) -> BookRow:
    """A row from its columns."""
    number, acknowledged, fee, in_flight, in_flight_fee, highest, sequence_max = found[:7]
    book = UserBook(
        acknowledged, int(fee), in_flight, int(in_flight_fee), int(highest), sequence_max
    )
    return BookRow(number, book, found[7], found[8], SubAccountKey(*found[9:12]))


def to_sub_account(row: BookRow) -> SubAccountBook:
    """A row as the book shows it."""
    return SubAccountBook(row.key, row.book, row.disputed)


def to_voucher(found: Row) -> StoredVoucher:
    """A voucher from its columns."""
    (request_id, request_hash, offer_hash, receipt_key, body_hash, body_bytes) = found[:6]
    (output_tokens_max, path, maximum_fee, deadline, cumulative_max, sequence_max) = found[6:12]
    (signature, answer_key, state, response_hash, response_bytes, is_complete) = found[12:18]
    (issued_at, offer, user, provider, signer) = found[18:]
    request = Request(offer_hash, body_hash, int(maximum_fee), request_id, deadline)
    voucher = Voucher(user, provider, int(cumulative_max), sequence_max, request_hash)
    return StoredVoucher(
        SignedVoucher(voucher, request, signer, signature),
        path,
        offer_from_json(msgspec.json.decode(offer)),
        receipt_key,
        bytes(answer_key),
        body_bytes,
        output_tokens_max,
        VoucherState(state),
        response_hash,
        response_bytes,
        bool(is_complete),
        issued_at,
    )


def to_receipt(found: Row) -> StoredReceipt:
    """A receipt from its columns."""
    request_id, encoded, verification, reason, is_acknowledged, received_at = found
    signed = receipt_from_json(msgspec.json.decode(encoded))
    return StoredReceipt(
        request_id,
        signed,
        Verification(verification),
        reason,
        bool(is_acknowledged),
        received_at,
    )
