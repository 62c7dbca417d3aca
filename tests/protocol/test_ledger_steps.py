"""What each call of the reference ledger changes, to the last field, and what it leaves alone.

`test_ledger_equals_contracts` holds the ledger to the contracts in any order of calls; this says by
itself, and quickly, what one call does.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from hanse.protocol import ledger as rules
from hanse.protocol.eip712 import hash_word, uint_word
from hanse.protocol.intents import Fund, OpenIntent
from hanse.protocol.ledger import (
    ClaimStatus,
    Emitted,
    Judgement,
    Ledger,
    Moved,
    PaidOver,
    PendingRefund,
    Provider,
    RecordsHead,
    Service,
    Step,
    SubAccount,
    SubAccountId,
)
from hanse.protocol.messages import Prices
from hanse.protocol.signatures import ZERO_ADDRESS, keccak, sign_digest, to_hex
from tests.protocol.ledger_parts import (
    CONDEMNED,
    HASH,
    KEY,
    LEAVING,
    LEDGER,
    OTHER_KEY,
    PAYEE,
    SECOND,
    STAKED,
    STRANGER,
    make_claim,
    sign_receipt,
    with_provider,
)
from tests.protocol.made_messages import (
    DOMAIN,
    NOW_S,
    PROVIDER,
    RECEIPT_ADDRESS,
    SIGNER,
    SIGNER_KEY,
    USER,
)

NAMES = KEY._asdict()
OPENED = SubAccountId(SIGNER, PROVIDER, SIGNER)
"""Of the one user whose key is known here, and who has nothing yet."""


def of_provider(entry: Provider, before: Ledger = LEDGER) -> dict[str, object]:
    return {"providers": {**before.providers, PROVIDER: entry}}


def set_sub_account(key: SubAccountId, account: SubAccount) -> dict[str, object]:
    return {"sub_accounts": {**LEDGER.sub_accounts, key: account}}


def made_intent() -> tuple[OpenIntent, str]:
    intent = OpenIntent(SIGNER, 900, (Fund(PROVIDER, SIGNER, 600),), 0, NOW_S)
    return intent, sign_digest(SIGNER_KEY, DOMAIN.digest(intent.struct_hash()))


def publish(ledger: Ledger = LEDGER, revision: int = 4, service_id: int = 1) -> Step:
    prices = Prices(100, 10, 300)
    return rules.apply_publish_service(
        ledger, RECEIPT_ADDRESS, PROVIDER, service_id, revision, HASH, "chat", "https://a", prices
    )


PUBLISHED = {
    "provider": PROVIDER,
    "service_id": 1,
    "revision": 4,
    "offer_hash": HASH,
    "service_type": "chat",
    "uri": "https://a",
    "input_price_per_mtok": 100,
    "cached_price_per_mtok": 10,
    "output_price_per_mtok": 300,
}
HEAD = RecordsHead(7, "0x" + "0e" * 32)
HEADED = replace(LEDGER, records={USER: HEAD})
NEXT_HEAD = to_hex(keccak(hash_word(HEAD.head) + hash_word(HASH) + uint_word(2) + uint_word(9)))
SETTLED = {"provider": PROVIDER, "payee": PAYEE, "records_head": HASH}
CONDEMNED_NOW = Emitted(
    "Condemned",
    {
        "provider": PROVIDER,
        "stake": 2_001,
        "burned": 1_001,
        "pool": 1_000,
        "until_s": NOW_S + 7_200,
    },
)
HALVED = replace(STAKED, stake=0, condemned_until_s=NOW_S + 7_200)

Case = tuple[Callable[[], Step], Ledger, dict[str, object], tuple[object, ...]]
"""The call, the state before it, the fields that it changes, and what it brings about."""

CASES: dict[str, Case] = {
    "deposit": (
        lambda: rules.apply_deposit(LEDGER, USER, 30),
        LEDGER,
        {"accounts": {**LEDGER.accounts, USER: 530}, "escrow_held": 1_577},
        (Emitted("Deposited", {"user": USER, "amount": 30}), Moved(USER, 30)),
    ),
    "first deposit": (
        lambda: rules.apply_deposit(LEDGER, STRANGER, 1),
        LEDGER,
        {"accounts": {**LEDGER.accounts, STRANGER: 1}, "escrow_held": 1_548},
        (Emitted("Deposited", {"user": STRANGER, "amount": 1}), Moved(STRANGER, 1)),
    ),
    "withdraw everything": (
        lambda: rules.apply_withdraw(LEDGER, USER, 500),
        LEDGER,
        {"accounts": {**LEDGER.accounts, USER: 0}, "escrow_held": 1_047},
        (Emitted("Withdrawn", {"user": USER, "amount": 500}), Moved(USER, -500)),
    ),
    "fund, first from the refund": (
        lambda: rules.apply_fund(LEDGER, USER, Fund(PROVIDER, SIGNER, 250)),
        LEDGER,
        {
            "accounts": {**LEDGER.accounts, USER: 450},
            "refunds": {KEY: PendingRefund()},
            **set_sub_account(KEY, SubAccount(1_050, 300, 4)),
        },
        (Emitted("Funded", {**NAMES, "amount": 250, "from_refund": 200, "refund": 0}),),
    ),
    "fund from the refund alone": (
        lambda: rules.apply_fund(LEDGER, USER, Fund(PROVIDER, SIGNER, 199)),
        LEDGER,
        {"refunds": {KEY: PendingRefund(1, NOW_S + 10)}},
        (Emitted("Funded", {**NAMES, "amount": 199, "from_refund": 199, "refund": 1}),),
    ),
    "fund a new one with all there is": (
        lambda: rules.apply_fund(LEDGER, USER, Fund(SECOND, SIGNER, 500)),
        LEDGER,
        {
            "accounts": {**LEDGER.accounts, USER: 0},
            "refunds": {**LEDGER.refunds, SubAccountId(USER, SECOND, SIGNER): PendingRefund()},
            **set_sub_account(SubAccountId(USER, SECOND, SIGNER), SubAccount(500)),
        },
        (
            Emitted(
                "Funded",
                {
                    "user": USER,
                    "provider": SECOND,
                    "signer": SIGNER,
                    "amount": 500,
                    "from_refund": 0,
                    "refund": 0,
                },
            ),
        ),
    ),
    "open two at once": (
        lambda: rules.apply_open(
            LEDGER, USER, 100, [Fund(PROVIDER, SIGNER, 300), Fund(PROVIDER, SIGNER, 500)]
        ),
        LEDGER,
        {
            "accounts": {**LEDGER.accounts, USER: 0},
            "refunds": {KEY: PendingRefund()},
            "escrow_held": 1_647,
            **set_sub_account(KEY, SubAccount(1_600, 300, 4)),
        },
        (
            Emitted("Deposited", {"user": USER, "amount": 100}),
            Emitted("Funded", {**NAMES, "amount": 300, "from_refund": 200, "refund": 0}),
            Emitted("Funded", {**NAMES, "amount": 500, "from_refund": 0, "refund": 0}),
            Moved(USER, 100),
        ),
    ),
    "open without a deposit": (
        lambda: rules.apply_open(LEDGER, USER, 0, [Fund(PROVIDER, SIGNER, 200)]),
        LEDGER,
        {"refunds": {KEY: PendingRefund()}},
        (Emitted("Funded", {**NAMES, "amount": 200, "from_refund": 200, "refund": 0}),),
    ),
    "open with a deposit of one and no sub-account": (
        lambda: rules.apply_open(LEDGER, STRANGER, 1, []),
        LEDGER,
        {"accounts": {**LEDGER.accounts, STRANGER: 1}, "escrow_held": 1_548},
        (Emitted("Deposited", {"user": STRANGER, "amount": 1}), Moved(STRANGER, 1)),
    ),
    "an intent at its last second": (
        lambda: rules.apply_open_intent(LEDGER, *made_intent(), NOW_S),
        LEDGER,
        {
            "accounts": {**LEDGER.accounts, SIGNER: 300},
            "refunds": {**LEDGER.refunds, OPENED: PendingRefund()},
            "nonces": {USER: 5, SIGNER: 1},
            "escrow_held": 2_447,
            **set_sub_account(OPENED, SubAccount(600)),
        },
        (
            Emitted("NonceUsed", {"user": SIGNER, "nonce": 0}),
            Emitted("Deposited", {"user": SIGNER, "amount": 900}),
            Emitted("Funded", {**OPENED._asdict(), "amount": 600, "from_refund": 0, "refund": 0}),
            Moved(SIGNER, 900),
        ),
    ),
    "invalidate an intent": (
        lambda: rules.apply_invalidate_intents(LEDGER, USER),
        LEDGER,
        {"nonces": {USER: 6}},
        (Emitted("NonceUsed", {"user": USER, "nonce": 5}),),
    ),
    "ask for the rest back": (
        lambda: rules.apply_request_refund(LEDGER, KEY, 800, NOW_S),
        LEDGER,
        {"refunds": {KEY: PendingRefund(1_000, NOW_S + 3_600)}},
        (
            Emitted(
                "RefundRequested",
                {**NAMES, "amount": 800, "refund": 1_000, "unlock_time_s": NOW_S + 3_600},
            ),
        ),
    ),
    "cancel a refund": (
        lambda: rules.apply_cancel_refund(LEDGER, KEY),
        LEDGER,
        {"refunds": {KEY: PendingRefund()}},
        (Emitted("RefundCancelled", {**NAMES, "amount": 200}),),
    ),
    "claim a refund at its second": (
        lambda: rules.apply_claim_refund(LEDGER, KEY, NOW_S + 10),
        LEDGER,
        {
            "accounts": {**LEDGER.accounts, USER: 700},
            "refunds": {KEY: PendingRefund()},
            **set_sub_account(KEY, SubAccount(800, 300, 4)),
        },
        (Emitted("RefundClaimed", {**NAMES, "amount": 200}),),
    ),
    "settle one of each": (
        lambda: rules.apply_settle(
            LEDGER,
            RECEIPT_ADDRESS,
            PROVIDER,
            [
                make_claim(900, 800),
                make_claim(900, 9, user=OTHER_KEY.user),
                make_claim(900, 9, user=STRANGER),
            ],
            HASH,
        ),
        LEDGER,
        {
            "sub_accounts": {KEY: SubAccount(500, 800, 5), OTHER_KEY: SubAccount(0, 7, 5)},
            "escrow_held": 1_040,
        },
        (
            Emitted(
                "Settled",
                {
                    **SETTLED,
                    "paid": 507,
                    "results": (
                        Judgement(KEY, ClaimStatus.PAID, 5, 500),
                        Judgement(OTHER_KEY, ClaimStatus.PARTIAL, 5, 7),
                        Judgement(
                            SubAccountId(STRANGER, PROVIDER, SIGNER),
                            ClaimStatus.UNKNOWN_SUB_ACCOUNT,
                            0,
                            0,
                        ),
                    ),
                },
            ),
            Moved(PAYEE, -507),
        ),
    ),
    "settle twice the same": (
        lambda: rules.apply_settle(
            LEDGER, PROVIDER, PROVIDER, [make_claim(900, 301), make_claim(900, 301)], HASH
        ),
        LEDGER,
        {"escrow_held": 1_546, **set_sub_account(KEY, SubAccount(999, 301, 5))},
        (
            Emitted(
                "Settled",
                {
                    **SETTLED,
                    "paid": 1,
                    "results": (
                        Judgement(KEY, ClaimStatus.PAID, 5, 1),
                        Judgement(KEY, ClaimStatus.NOTHING_NEW, 5, 0),
                    ),
                },
            ),
            Moved(PAYEE, -1),
        ),
    ),
    "settle nothing": (
        lambda: rules.apply_settle(LEDGER, PROVIDER, PROVIDER, [make_claim(900, 300)], HASH),
        LEDGER,
        {},
        (
            Emitted(
                "Settled",
                {
                    **SETTLED,
                    "paid": 0,
                    "results": (Judgement(KEY, ClaimStatus.NOTHING_NEW, 4, 0),),
                },
            ),
        ),
    ),
    "register with the least": (
        lambda: rules.apply_register(LEDGER, STRANGER, 1_000, STRANGER, PAYEE),
        LEDGER,
        {
            "providers": {**LEDGER.providers, STRANGER: Provider(1_000, 0, STRANGER, PAYEE)},
            "receipt_keys": {**LEDGER.receipt_keys, STRANGER: STRANGER},
            "registry_held": 4_012,
        },
        (
            Emitted(
                "Registered",
                {"provider": STRANGER, "receipt_key": STRANGER, "payee": PAYEE, "stake": 1_000},
            ),
            Moved(STRANGER, 1_000),
        ),
    ),
    "add to a stake": (
        lambda: rules.apply_add_stake(LEDGER, PROVIDER, 1),
        LEDGER,
        {**of_provider(replace(STAKED, stake=2_002)), "registry_held": 3_013},
        (
            Emitted("StakeAdded", {"provider": PROVIDER, "amount": 1, "stake": 2_002}),
            Moved(PROVIDER, 1),
        ),
    ),
    "come back with the least": (
        lambda: rules.apply_add_stake(with_provider(replace(STAKED, stake=0)), PROVIDER, 1_000),
        with_provider(replace(STAKED, stake=0)),
        {**of_provider(replace(STAKED, stake=1_000)), "registry_held": 4_012},
        (
            Emitted("StakeAdded", {"provider": PROVIDER, "amount": 1_000, "stake": 1_000}),
            Moved(PROVIDER, 1_000),
        ),
    ),
    "begin unbonding": (
        lambda: rules.apply_begin_unbonding(LEDGER, PROVIDER, NOW_S),
        LEDGER,
        of_provider(replace(STAKED, unbonding_until_s=NOW_S + 20_000)),
        (
            Emitted(
                "UnbondingBegun",
                {"provider": PROVIDER, "stake": 2_001, "until_s": NOW_S + 20_000},
            ),
        ),
    ),
    "begin unbonding one base unit": (
        lambda: rules.apply_begin_unbonding(
            with_provider(replace(STAKED, stake=1)), PROVIDER, NOW_S
        ),
        with_provider(replace(STAKED, stake=1)),
        of_provider(replace(STAKED, stake=1, unbonding_until_s=NOW_S + 20_000)),
        (Emitted("UnbondingBegun", {"provider": PROVIDER, "stake": 1, "until_s": NOW_S + 20_000}),),
    ),
    "cancel unbonding": (
        lambda: rules.apply_cancel_unbonding(with_provider(LEAVING), PROVIDER),
        with_provider(LEAVING),
        of_provider(STAKED),
        (Emitted("UnbondingCancelled", {"provider": PROVIDER, "stake": 2_001}),),
    ),
    "finish unbonding at its second": (
        lambda: rules.apply_finish_unbonding(with_provider(LEAVING), PROVIDER, NOW_S + 50),
        with_provider(LEAVING),
        {**of_provider(replace(STAKED, stake=0)), "registry_held": 1_011},
        (
            Emitted("UnbondingFinished", {"provider": PROVIDER, "stake": 2_001}),
            Moved(PROVIDER, -2_001),
        ),
    ),
    "announce a receipt key": (
        lambda: rules.apply_announce_receipt_key(LEDGER, PROVIDER, STRANGER, NOW_S),
        LEDGER,
        of_provider(
            replace(STAKED, next_receipt_key=STRANGER, next_receipt_key_from_s=NOW_S + 900)
        ),
        (
            Emitted(
                "ReceiptKeyAnnounced",
                {"provider": PROVIDER, "receipt_key": STRANGER, "from_s": NOW_S + 900},
            ),
        ),
    ),
    "complete a receipt key at its second": (
        lambda: rules.apply_complete_receipt_key(
            with_provider(
                replace(STAKED, next_receipt_key=STRANGER, next_receipt_key_from_s=NOW_S)
            ),
            PROVIDER,
            NOW_S,
        ),
        LEDGER,
        {
            **of_provider(replace(STAKED, receipt_key=STRANGER)),
            "receipt_keys": {**LEDGER.receipt_keys, STRANGER: PROVIDER},
        },
        (Emitted("ReceiptKeyChanged", {"provider": PROVIDER, "receipt_key": STRANGER}),),
    ),
    "complete a receipt key that was its own before": (
        lambda: rules.apply_complete_receipt_key(
            with_provider(
                replace(STAKED, next_receipt_key=RECEIPT_ADDRESS, next_receipt_key_from_s=NOW_S)
            ),
            PROVIDER,
            NOW_S,
        ),
        LEDGER,
        {},
        (Emitted("ReceiptKeyChanged", {"provider": PROVIDER, "receipt_key": RECEIPT_ADDRESS}),),
    ),
    "announce a payee": (
        lambda: rules.apply_announce_payee(LEDGER, PROVIDER, STRANGER, NOW_S),
        LEDGER,
        of_provider(replace(STAKED, next_payee=STRANGER, next_payee_from_s=NOW_S + 900)),
        (
            Emitted(
                "PayeeAnnounced",
                {"provider": PROVIDER, "payee": STRANGER, "from_s": NOW_S + 900},
            ),
        ),
    ),
    "complete a payee": (
        lambda: rules.apply_complete_payee(
            with_provider(replace(STAKED, next_payee=STRANGER, next_payee_from_s=NOW_S)),
            PROVIDER,
            NOW_S,
        ),
        LEDGER,
        of_provider(replace(STAKED, payee=STRANGER, next_payee=ZERO_ADDRESS)),
        (Emitted("PayeeChanged", {"provider": PROVIDER, "payee": STRANGER}),),
    ),
    "publish a revision": (
        publish,
        LEDGER,
        {"services": {(PROVIDER, 1): Service(HASH, 4, True)}},
        (Emitted("ServicePublished", PUBLISHED),),
    ),
    "publish another service's first": (
        lambda: publish(revision=1, service_id=2),
        LEDGER,
        {"services": {**LEDGER.services, (PROVIDER, 2): Service(HASH, 1, True)}},
        (Emitted("ServicePublished", {**PUBLISHED, "service_id": 2, "revision": 1}),),
    ),
    "retire a service": (
        lambda: rules.apply_retire_service(LEDGER, PROVIDER, PROVIDER, 1),
        LEDGER,
        {"services": {(PROVIDER, 1): Service(HASH, 3, False)}},
        (Emitted("ServiceRetired", {"provider": PROVIDER, "service_id": 1}),),
    ),
    "prove an overclaim first": (
        lambda: rules.apply_prove_overclaim(LEDGER, STRANGER, sign_receipt(260), NOW_S),
        LEDGER,
        {
            **of_provider(replace(HALVED, pool=960)),
            "accounts": {**LEDGER.accounts, USER: 540},
            "compensations": {KEY: 40},
            "burned": 1_012,
            "escrow_held": 1_587,
            "registry_held": 2_972,
        },
        (
            CONDEMNED_NOW,
            Emitted("Slashed", {"provider": PROVIDER, "amount": 40, "pool": 960}),
            PaidOver(40),
            Emitted(
                "OverclaimProven",
                {
                    **NAMES,
                    "sequence": 4,
                    "claimed": 300,
                    "cumulative_fee": 260,
                    "loss": 40,
                    "compensation": 40,
                    "reporter": STRANGER,
                },
            ),
        ),
    ),
    "prove an overclaim of one, paid to one who has no account": (
        lambda: rules.apply_prove_overclaim(
            replace(LEDGER, accounts={}), STRANGER, sign_receipt(299, 9), NOW_S
        ),
        replace(LEDGER, accounts={}),
        {
            **of_provider(replace(HALVED, pool=999)),
            "accounts": {USER: 1},
            "compensations": {KEY: 1},
            "burned": 1_012,
            "escrow_held": 1_548,
            "registry_held": 3_011,
        },
        (
            CONDEMNED_NOW,
            Emitted("Slashed", {"provider": PROVIDER, "amount": 1, "pool": 999}),
            PaidOver(1),
            Emitted(
                "OverclaimProven",
                {
                    **NAMES,
                    "sequence": 9,
                    "claimed": 300,
                    "cumulative_fee": 299,
                    "loss": 1,
                    "compensation": 1,
                    "reporter": STRANGER,
                },
            ),
        ),
    ),
    "prove the rest of a loss at the last second, from a pool that runs dry": (
        lambda: rules.apply_prove_overclaim(
            replace(with_provider(CONDEMNED), compensations={KEY: 40}),
            STRANGER,
            sign_receipt(100),
            NOW_S + 59,
        ),
        replace(with_provider(CONDEMNED), compensations={KEY: 40}),
        {
            **of_provider(replace(CONDEMNED, pool=0)),
            "accounts": {**LEDGER.accounts, USER: 570},
            "compensations": {KEY: 110},
            "escrow_held": 1_617,
            "registry_held": 2_942,
        },
        (
            Emitted("Slashed", {"provider": PROVIDER, "amount": 70, "pool": 0}),
            PaidOver(70),
            Emitted(
                "OverclaimProven",
                {
                    **NAMES,
                    "sequence": 4,
                    "claimed": 300,
                    "cumulative_fee": 100,
                    "loss": 200,
                    "compensation": 70,
                    "reporter": STRANGER,
                },
            ),
        ),
    ),
    "prove an equivocation that took nothing": (
        lambda: rules.apply_prove_equivocation(
            LEDGER, STRANGER, sign_receipt(400), sign_receipt(301), NOW_S
        ),
        LEDGER,
        {**of_provider(replace(HALVED, pool=1_000)), "burned": 1_012},
        (
            CONDEMNED_NOW,
            Emitted(
                "EquivocationProven",
                {**NAMES, "sequence": 4, "loss": 0, "compensation": 0, "reporter": STRANGER},
            ),
        ),
    ),
    "prove an equivocation below what is claimed": (
        lambda: rules.apply_prove_equivocation(
            with_provider(CONDEMNED), STRANGER, sign_receipt(280), sign_receipt(900), NOW_S
        ),
        with_provider(CONDEMNED),
        {
            **of_provider(replace(CONDEMNED, pool=50)),
            "accounts": {**LEDGER.accounts, USER: 520},
            "compensations": {KEY: 20},
            "escrow_held": 1_567,
            "registry_held": 2_992,
        },
        (
            Emitted("Slashed", {"provider": PROVIDER, "amount": 20, "pool": 50}),
            PaidOver(20),
            Emitted(
                "EquivocationProven",
                {**NAMES, "sequence": 4, "loss": 20, "compensation": 20, "reporter": STRANGER},
            ),
        ),
    ),
    "burn the rest": (
        lambda: rules.apply_burn_rest(with_provider(CONDEMNED), PROVIDER, NOW_S + 60),
        with_provider(CONDEMNED),
        {**of_provider(replace(CONDEMNED, pool=0)), "burned": 81},
        (Emitted("RestBurned", {"provider": PROVIDER, "amount": 70}),),
    ),
    "commit a root": (
        lambda: rules.apply_commit(HEADED, USER, HASH, 2, 9),
        HEADED,
        {"records": {USER: RecordsHead(8, NEXT_HEAD)}},
        (
            Emitted(
                "Committed",
                {
                    "recorder": USER,
                    "number": 8,
                    "root": HASH,
                    "count": 2,
                    "fee_total": 9,
                    "head": NEXT_HEAD,
                },
            ),
        ),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_call_changes_this_and_nothing_else(case: Case) -> None:
    act, before, changes, effects = case
    step = act()
    assert step.effects == effects
    assert step.ledger == replace(before, **changes)


def test_a_settlement_can_overtake_a_refund() -> None:
    """What is pending is never more than what is held, whoever asks."""
    short = replace(LEDGER, sub_accounts={KEY: SubAccount(120, 1_180, 9)})
    step = rules.apply_cancel_refund(short, KEY)
    assert step.effects == (Emitted("RefundCancelled", {**NAMES, "amount": 120}),)
    step = rules.apply_claim_refund(short, KEY, NOW_S + 10)
    assert step.effects == (Emitted("RefundClaimed", {**NAMES, "amount": 120}),)
    assert step.ledger.sub_accounts[KEY] == SubAccount(0, 1_180, 9)
    step = rules.apply_fund(short, USER, Fund(PROVIDER, SIGNER, 130))
    assert step.effects == (
        Emitted("Funded", {**NAMES, "amount": 130, "from_refund": 120, "refund": 0}),
    )


def test_after_a_refund_was_overtaken_whole_its_claim_still_goes_and_brings_nothing() -> None:
    empty = replace(LEDGER, sub_accounts={}, accounts={})
    step = rules.apply_claim_refund(empty, KEY, NOW_S + 10)
    assert step.effects == (Emitted("RefundClaimed", {**NAMES, "amount": 0}),)
    assert step.ledger.accounts == {USER: 0}


@pytest.mark.parametrize(
    ("account", "claim", "status"),
    [
        (SubAccount(), make_claim(9, 9), ClaimStatus.UNKNOWN_SUB_ACCOUNT),
        (SubAccount(5), make_claim(9, 9, user=STRANGER, key=SIGNER_KEY), ClaimStatus.PARTIAL),
        (SubAccount(9), replace(make_claim(9, 9), r=bytes(32)), ClaimStatus.BAD_SIGNATURE),
        (SubAccount(9), replace(make_claim(9, 9), cumulative_max=8), ClaimStatus.BAD_SIGNATURE),
        (SubAccount(9), make_claim(9, 10), ClaimStatus.OVER_VOUCHER),
        (SubAccount(9), make_claim(9, 9, 7), ClaimStatus.OVER_VOUCHER),
        (SubAccount(9), make_claim(9, 9, 6), ClaimStatus.PAID),
        (SubAccount(9, 9, 1), make_claim(9, 9), ClaimStatus.NOTHING_NEW),
        (SubAccount(9, 8, 6), make_claim(9, 9), ClaimStatus.NOTHING_NEW),
        (SubAccount(9, 8, 5), make_claim(9, 9), ClaimStatus.PAID),
        (SubAccount(0, 8, 5), make_claim(9, 9), ClaimStatus.PARTIAL),
        (SubAccount(1, 8, 5), make_claim(9, 9), ClaimStatus.PAID),
    ],
)
def test_the_first_status_that_fits_is_the_claims(account, claim, status) -> None:
    assert rules.judge_claim(LEDGER.rules, account, claim, PROVIDER) is status


def test_signatures_of_both_parities_are_read() -> None:
    """EIP-2098 keeps v's bit on top of s; of these vouchers some have it and some have not."""
    claims = [make_claim(maximum, 9) for maximum in range(9, 29)]
    assert {claim.vs[0] >> 7 for claim in claims} == {0, 1}
    statuses = {rules.judge_claim(LEDGER.rules, SubAccount(9), c, PROVIDER) for c in claims}
    assert statuses == {ClaimStatus.PAID}


@pytest.mark.parametrize(
    ("entry", "active", "callers"),
    [
        (STAKED, True, {PROVIDER, RECEIPT_ADDRESS}),
        (replace(STAKED, stake=1_000), True, {PROVIDER, RECEIPT_ADDRESS}),
        (replace(STAKED, stake=999), False, {PROVIDER, RECEIPT_ADDRESS}),
        (LEAVING, False, {PROVIDER, RECEIPT_ADDRESS}),
        (CONDEMNED, False, {PROVIDER, RECEIPT_ADDRESS}),
        (Provider(), False, set()),
    ],
)
def test_who_is_active_and_who_may_settle(entry, active, callers) -> None:
    ledger = with_provider(entry)
    assert rules.is_active(ledger, PROVIDER) is active
    asked = (PROVIDER, RECEIPT_ADDRESS, STRANGER, ZERO_ADDRESS)
    found = {caller: rules.find_payee(ledger, PROVIDER, caller) for caller in asked}
    assert found == {caller: PAYEE if caller in callers else None for caller in asked}
    assert not rules.is_active(ledger, STRANGER)
    assert rules.find_payee(ledger, STRANGER, STRANGER) is None


def test_a_new_ledger_is_empty() -> None:
    new = Ledger(LEDGER.rules)
    empty = (new.accounts, new.sub_accounts, new.refunds, new.nonces, new.providers)
    assert [*empty, new.receipt_keys, new.services, new.compensations, new.records] == [{}] * 9
    assert (new.burned, new.escrow_held, new.registry_held) == (0, 0, 0)
