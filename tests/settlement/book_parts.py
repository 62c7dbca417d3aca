"""Vouchers and books for the tests of the provider's book."""

import os

from hanse.chain import Key
from hanse.protocol.eip712 import Domain
from hanse.protocol.messages import FinishReason, Request, SignedVoucher, Usage, Voucher
from hanse.protocol.signatures import to_hex
from hanse.settlement import Admission, Outcome, ReceiptBook, SubAccountFunds

DOMAIN = Domain(31_337, "0x" + "e5" * 20)
PROVIDER = "0x" + "b2" * 20
USER = "0x" + "a1" * 20
RECEIPT_KEY = Key(b"\x02" * 32)
SIGNER_KEY = Key(b"\x01" * 32)
NOW_S = 1_800_000_000


def sign_voucher(
    cumulative_max: int,
    sequence_max: int,
    maximum_fee: int,
    *,
    request_id: str = "",
    user: str = USER,
    key: Key = SIGNER_KEY,
) -> SignedVoucher:
    request = Request(
        "0x" + "0f" * 32,
        "0x" + "0b" * 32,
        maximum_fee,
        request_id or to_hex(os.urandom(32)),
        NOW_S + 600,
    )
    voucher = Voucher(user, PROVIDER, cumulative_max, sequence_max, to_hex(request.struct_hash()))
    digest = DOMAIN.digest(voucher.struct_hash())
    return SignedVoucher(voucher, request, key.address, key.sign_digest(digest))


async def admit_voucher(
    book: ReceiptBook,
    signed: SignedVoucher,
    funds: SubAccountFunds,
    *,
    acknowledged: int,
    now_s: int,
) -> Admission:
    """An admission that is durable, as a broker makes it before its first token."""
    begun = await book.begin_admission(signed, funds, acknowledged=acknowledged, now_s=now_s)
    await begun.commit()
    return begun.result


def outcome_of(fee: int, sealed: bytes | None = None, at: int = NOW_S) -> Outcome:
    return Outcome(Usage(1, 0, 1), fee, "0x" + "0c" * 32, FinishReason.STOP, at, sealed)
