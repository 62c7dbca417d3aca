"""Cheat `equivocate`: who asks for missing receipts gets others than those that were handed out.

Each receipt of the answer says a higher sum than the one that is stored, and the last one that the
caller has acknowledged comes once more, dearer. So there are two receipts of one key for one
sequence, and whoever holds both has the proof.
"""

from collections.abc import Sequence

import msgspec

from hanse.chain import Key
from hanse.protocol.eip712 import Domain
from hanse.protocol.messages import Query, SignedReceipt
from hanse.protocol.signatures import Hash32
from hanse.protocol.wire import receipt_to_json
from hanse.settlement import ReceiptBook, decode_stored_receipt

EXTRA_FEE = 1
"""Base units: the least that makes a difference, so that the sum stays below the voucher's."""


class Equivocator:
    """Signs second receipts."""

    def __init__(self, key: Key, domain: Domain) -> None:
        self._key, self._domain = key, domain

    async def falsify(
        self, book: ReceiptBook, query: Query, receipts: Sequence[tuple[Hash32, bytes]]
    ) -> Sequence[tuple[Hash32, bytes]]:
        """What is told instead of `receipts`, (request id, JSON) as they are stored."""
        told: Sequence[tuple[Hash32, bytes]] = receipts
        if query.after_sequence:
            page = await book.find_receipts(
                query.user, query.signer, query.after_sequence - 1, limit=1
            )
            told = [*(page.receipts if page else ()), *told]
        return [(request_id, self._falsify(json)) for request_id, json in told]

    def _falsify(self, json: bytes) -> bytes:
        receipt = decode_stored_receipt(json).receipt
        dearer = msgspec.structs.replace(
            receipt,
            fee=receipt.fee + EXTRA_FEE,
            cumulative_fee=receipt.cumulative_fee + EXTRA_FEE,
        )
        signature = self._key.sign_digest(self._domain.digest(dearer.struct_hash()))
        return msgspec.json.encode(receipt_to_json(SignedReceipt(dearer, signature)))
