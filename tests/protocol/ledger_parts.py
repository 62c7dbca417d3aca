"""A small ledger in which every number is another: no two can be mixed up unseen."""

from dataclasses import replace

import msgspec

from hanse.protocol.ledger import (
    Ledger,
    PendingRefund,
    Provider,
    Rules,
    Service,
    SubAccount,
    SubAccountId,
    VoucherClaim,
)
from hanse.protocol.messages import FinishReason, Receipt, SignedReceipt, Usage, Voucher
from hanse.protocol.signatures import sign_digest, to_compact
from tests.protocol.made_messages import (
    DOMAIN,
    NOW_S,
    PROVIDER,
    RECEIPT_ADDRESS,
    RECEIPT_KEY,
    SIGNER,
    SIGNER_KEY,
    USER,
)

OTHER, PAYEE, STRANGER = "0x" + "a2" * 20, "0x" + "b9" * 20, "0x" + "cc" * 20
SECOND = "0x" + "b3" * 20
HASH = "0x" + "ab" * 32
KEY = SubAccountId(USER, PROVIDER, SIGNER)
OTHER_KEY = SubAccountId(OTHER, PROVIDER, SIGNER)
RULES = Rules(DOMAIN, 3_600, 1_000, 7_200, 20_000, 900)
STAKED = Provider(stake=2_001, receipt_key=RECEIPT_ADDRESS, payee=PAYEE)
LEAVING = replace(STAKED, unbonding_until_s=NOW_S + 50)
CONDEMNED = replace(STAKED, stake=0, pool=70, condemned_until_s=NOW_S + 60)

LEDGER = Ledger(
    RULES,
    accounts={USER: 500, OTHER: 40},
    sub_accounts={KEY: SubAccount(1_000, 300, 4), OTHER_KEY: SubAccount(7, 0, 0)},
    refunds={KEY: PendingRefund(200, NOW_S + 10)},
    nonces={USER: 5},
    providers={PROVIDER: STAKED, SECOND: Provider(stake=1_000, receipt_key=SECOND, payee=SECOND)},
    receipt_keys={RECEIPT_ADDRESS: PROVIDER, SECOND: SECOND},
    services={(PROVIDER, 1): Service(HASH, 3, True)},
    burned=11,
    escrow_held=1_547,
    registry_held=3_012,
)


def with_provider(entry: Provider, ledger: Ledger = LEDGER) -> Ledger:
    return replace(ledger, providers={**ledger.providers, PROVIDER: entry})


def make_claim(
    cumulative_max: int,
    claimed: int,
    sequence: int = 5,
    *,
    sequence_max: int = 6,
    user: str = USER,
    key: object = SIGNER_KEY,
) -> VoucherClaim:
    voucher = Voucher(user, PROVIDER, cumulative_max, sequence_max, HASH)
    r, vs = to_compact(sign_digest(key, DOMAIN.digest(voucher.struct_hash())))
    return VoucherClaim(user, SIGNER, cumulative_max, claimed, sequence, sequence_max, HASH, r, vs)


def sign_receipt(
    cumulative_fee: int, sequence: int = 4, key: object = RECEIPT_KEY, **changes: object
) -> SignedReceipt:
    receipt = Receipt(
        user=USER,
        provider=PROVIDER,
        signer=SIGNER,
        sequence=sequence,
        request_hash=HASH,
        response_hash=HASH,
        usage=Usage(1, 0, 1),
        fee=1,
        cumulative_fee=cumulative_fee,
        finish_reason=FinishReason.STOP,
        finished_at=NOW_S,
        commitment_root=HASH,
    )
    receipt = msgspec.structs.replace(receipt, **changes)
    return SignedReceipt(receipt, sign_digest(key, DOMAIN.digest(receipt.struct_hash())))
