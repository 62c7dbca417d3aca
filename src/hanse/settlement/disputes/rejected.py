"""Receipts that a provider signed and that the user's book did not take.

A receipt that is refused (too dear, for an unknown request, out of its turn) is worth nothing by
itself. But if the provider has signed, or will sign, another one for the same sequence, the two
prove an equivocation. So each is kept, apart from the book, until its counterpart is there.

    await keep_rejected(database, signed, reason, now_s)     its signature was checked

What a hostile broker can fill is bounded for each sub-account: the first ones are kept, later ones
are dropped. Those that wait for a counterpart fill half of the room at most, so that they cannot
crowd out one whose counterpart is there.

Source: `docs/decisions/0016-disputes.md`.
"""

import msgspec

from hanse.protocol.messages import SignedReceipt
from hanse.protocol.wire import encode_receipt_json, receipt_from_json
from hanse.settlement.disputes import tables as sql
from hanse.store.database import INTEGER_MAX, Database, Transaction

REJECTED_PER_SUB_ACCOUNT_MAX = 64
"""Rejected receipts kept of one sub-account, about 1 kB each: one may take the stake."""


async def keep_rejected(database: Database, signed: SignedReceipt, reason: str, now_s: int) -> bool:
    """Keep a receipt that was not taken; durable on return.

    The caller has checked that a receipt key of the named provider signed it, and that it names a
    sub-account of its own.

    Returns:
        Whether it is new and was kept; False too once there are as many as are kept.
    """
    receipt = signed.receipt
    names = (receipt.user, receipt.provider, receipt.signer)
    digest = receipt.struct_hash().hex()
    encoded = encode_receipt_json(signed).decode()

    def write(tx: Transaction) -> bool:
        if tx.find_one(sql.FIND_REJECTED, (*names, digest)) is not None:
            return False
        is_proof = _contradicts(tx, signed)
        most = REJECTED_PER_SUB_ACCOUNT_MAX if is_proof else REJECTED_PER_SUB_ACCOUNT_MAX // 2
        count = tx.find_one(sql.COUNT_REJECTED, names)
        if count is not None and count[0] >= most:
            return False
        row = (*names, digest, str(receipt.sequence), encoded, reason, now_s)
        return tx.execute(sql.INSERT_REJECTED, row) == 1

    return await database.write(write)


def _contradicts(tx: Transaction, signed: SignedReceipt) -> bool:
    """Whether another receipt for its sequence is held."""
    receipt = signed.receipt
    if receipt.sequence > INTEGER_MAX:
        return False
    names = (receipt.user, receipt.provider, receipt.signer)
    held = tx.find_one(sql.FIND_HELD, (*names, receipt.sequence))
    if held is not None:
        return receipt_from_json(msgspec.json.decode(held[0])).receipt != receipt
    return tx.find_one(sql.FIND_REJECTED_AT, (*names, str(receipt.sequence))) is not None
