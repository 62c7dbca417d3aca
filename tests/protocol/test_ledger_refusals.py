"""Every refusal of the reference ledger: its revert reason, and the words that say what disagrees.

A row stands at the edge: one unit, one second or one field less and the call would go through
(`test_ledger_steps`).
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from hanse.protocol import ledger as rules
from hanse.protocol.errors import RequestError
from hanse.protocol.intents import Fund, OpenIntent
from hanse.protocol.ledger import (
    REVERT_REASONS,
    Ledger,
    PendingRefund,
    Step,
    SubAccount,
)
from hanse.protocol.limits import AMOUNT_MAX
from hanse.protocol.messages import Prices, SignedReceipt
from hanse.protocol.signatures import ZERO_ADDRESS, ZERO_HASH, get_address, sign_digest
from tests.protocol.ledger_parts import (
    CONDEMNED,
    HASH,
    KEY,
    LEAVING,
    LEDGER,
    OTHER,
    PAYEE,
    SECOND,
    STAKED,
    STRANGER,
    make_claim,
    sign_receipt,
    with_provider,
)
from tests.protocol.made_messages import (
    ATTACKER_KEY,
    DOMAIN,
    NOW_S,
    PROVIDER,
    RECEIPT_ADDRESS,
    SIGNER,
    SIGNER_KEY,
    USER,
)

OVER = AMOUNT_MAX + 1
ATTACKER = get_address(ATTACKER_KEY.public_key)
UNBONDING = with_provider(LEAVING)
PROVEN = with_provider(CONDEMNED)
EMPTY = with_provider(replace(STAKED, stake=0))
ANNOUNCED = with_provider(
    replace(STAKED, next_receipt_key_from_s=NOW_S + 1, next_payee_from_s=NOW_S + 2)
)
PLACE = (USER, PROVIDER, SIGNER, 4)
NOT_A_SIGNATURE = "a signature is 0x and 130 hex digits (r, s, v)"


def fund(amount: int, provider: str = PROVIDER, signer: str = SIGNER, ledger: Ledger = LEDGER):
    return rules.apply_fund(ledger, USER, Fund(provider, signer, amount))


def open_intent(
    now_s: int = NOW_S, nonce: int = 0, user: str = SIGNER, signature: str = ""
) -> Step:
    intent = OpenIntent(user, 1, (), nonce, NOW_S)
    signature = signature or sign_digest(SIGNER_KEY, DOMAIN.digest(intent.struct_hash()))
    return rules.apply_open_intent(LEDGER, intent, signature, now_s)


def publish(
    ledger: Ledger = LEDGER,
    caller: str = PROVIDER,
    revision: int = 4,
    offer_hash: str = HASH,
    service_type: str = "chat",
) -> Step:
    prices = Prices(100, 10, 300)
    return rules.apply_publish_service(
        ledger, caller, PROVIDER, 1, revision, offer_hash, service_type, "https://a", prices
    )


def prove(signed: SignedReceipt, now_s: int = NOW_S, ledger: Ledger = LEDGER) -> Step:
    return rules.apply_prove_overclaim(ledger, STRANGER, signed, now_s)


def prove_two(first: SignedReceipt, second: SignedReceipt, ledger: Ledger = LEDGER) -> Step:
    return rules.apply_prove_equivocation(ledger, STRANGER, first, second, NOW_S)


CASES: list[tuple[Callable[[], object], str, str]] = [
    (
        lambda: rules.apply_deposit(LEDGER, USER, 0),
        "amount",
        f"a deposit of 0 is outside 1 .. {AMOUNT_MAX}",
    ),
    (
        lambda: rules.apply_deposit(LEDGER, USER, OVER),
        "amount",
        f"a deposit of {OVER} is outside 1 .. {AMOUNT_MAX}",
    ),
    (
        lambda: rules.apply_withdraw(LEDGER, USER, 0),
        "amount",
        "a withdrawal of 0 is not above 0",
    ),
    (
        lambda: rules.apply_withdraw(LEDGER, USER, 501),
        "balance",
        "the account holds 500, 501 are asked for",
    ),
    (
        lambda: rules.apply_withdraw(LEDGER, STRANGER, 1),
        "balance",
        "the account holds 0, 1 are asked for",
    ),
    (lambda: fund(0), "amount", f"funds of 0 are outside 1 .. {AMOUNT_MAX}"),
    (lambda: fund(OVER), "amount", f"funds of {OVER} are outside 1 .. {AMOUNT_MAX}"),
    (
        lambda: fund(1, signer=ZERO_ADDRESS),
        "signer",
        "the signer is the zero address; name the key that signs vouchers",
    ),
    (
        lambda: fund(1, provider=STRANGER),
        "provider",
        f"the stake of {STRANGER} does not stand",
    ),
    (lambda: fund(701), "balance", "the account holds 500, 501 are needed"),
    (
        lambda: rules.apply_fund(LEDGER, STRANGER, Fund(PROVIDER, SIGNER, 1)),
        "balance",
        "the account holds 0, 1 are needed",
    ),
    (
        lambda: fund(
            1_001, ledger=replace(LEDGER, sub_accounts={KEY: SubAccount(0, AMOUNT_MAX - 300)})
        ),
        "balance",
        "the account holds 500, 1001 are needed",
    ),
    (
        lambda: fund(
            301, ledger=replace(LEDGER, sub_accounts={KEY: SubAccount(0, AMOUNT_MAX - 300)})
        ),
        "amount",
        f"the sub-account would pass {AMOUNT_MAX} over its life",
    ),
    (
        lambda: rules.apply_open(LEDGER, USER, 1, [Fund(PROVIDER, SIGNER, 1)] * 21),
        "",
        "21 sub-accounts, at most 20 at once",
    ),
    (
        lambda: rules.apply_open(LEDGER, USER, 0, []),
        "amount",
        "a deposit of 0 with 0 sub-accounts",
    ),
    (
        lambda: rules.apply_open(LEDGER, USER, OVER, []),
        "amount",
        f"a deposit of {OVER} with 0 sub-accounts",
    ),
    (
        lambda: rules.apply_open(LEDGER, USER, -1, [Fund(PROVIDER, SIGNER, 1)]),
        "amount",
        "a deposit of -1 with 1 sub-accounts",
    ),
    (
        lambda: rules.apply_open(
            LEDGER, USER, 1, [Fund(PROVIDER, SIGNER, 300), Fund(PROVIDER, SIGNER, 402)]
        ),
        "balance",
        "the account holds 401, 402 are needed",
    ),
    (
        lambda: rules.apply_open(LEDGER, STRANGER, 1, [Fund(PROVIDER, SIGNER, 2)]),
        "balance",
        "the account holds 1, 2 are needed",
    ),
    (
        lambda: open_intent(NOW_S + 1),
        "deadline",
        f"the intent was good until {NOW_S}, it is {NOW_S + 1}",
    ),
    (
        lambda: open_intent(nonce=1),
        "nonce",
        "the intent has nonce 1, the next one is 0",
    ),
    (
        lambda: open_intent(user=USER),
        "nonce",
        "the intent has nonce 0, the next one is 5",
    ),
    (
        lambda: open_intent(user=OTHER),
        "signature",
        f"the intent is signed by {SIGNER}, not by {OTHER}",
    ),
    (lambda: open_intent(signature="0x"), "signature", NOT_A_SIGNATURE),
    (
        lambda: rules.apply_request_refund(LEDGER, KEY, 0, NOW_S),
        "amount",
        "a refund of 0 is not above 0",
    ),
    (
        lambda: rules.apply_request_refund(LEDGER, KEY, 801, NOW_S),
        "balance",
        "800 are not pending yet, 801 are asked for",
    ),
    (
        lambda: rules.apply_cancel_refund(replace(LEDGER, refunds={}), KEY),
        "no refund",
        f"no refund is pending for {KEY}",
    ),
    (
        lambda: rules.apply_claim_refund(replace(LEDGER, refunds={}), KEY, NOW_S),
        "no refund",
        f"no refund is pending for {KEY}",
    ),
    (
        lambda: rules.apply_claim_refund(LEDGER, KEY, NOW_S + 9),
        "locked",
        f"the refund unlocks at {NOW_S + 10}, it is {NOW_S + 9}",
    ),
    (
        lambda: rules.apply_settle(LEDGER, PROVIDER, PROVIDER, [make_claim(9, 9)] * 201, HASH),
        "",
        "201 claims, at most 200 at once",
    ),
    (
        lambda: rules.apply_settle(LEDGER, PROVIDER, PROVIDER, [], HASH),
        "no claims",
        "0 claims, at least 1 is needed",
    ),
    (
        lambda: rules.apply_settle(LEDGER, STRANGER, PROVIDER, [make_claim(9, 9)], HASH),
        "not permitted",
        f"{STRANGER} is no key of {PROVIDER}",
    ),
    (
        lambda: rules.apply_register(LEDGER, PROVIDER, 1_000, RECEIPT_ADDRESS, PAYEE),
        "registered",
        f"{PROVIDER} is registered; add to its stake instead",
    ),
    (
        lambda: rules.apply_register(LEDGER, STRANGER, 999, STRANGER, PAYEE),
        "stake",
        "a stake of 999 is below 1000",
    ),
    (
        lambda: rules.apply_register(LEDGER, STRANGER, OVER, STRANGER, PAYEE),
        "amount",
        f"a stake of {OVER} is above {AMOUNT_MAX}",
    ),
    (
        lambda: rules.apply_register(LEDGER, STRANGER, 1_000, STRANGER, ZERO_ADDRESS),
        "payee",
        "the payee is the zero address",
    ),
    (
        lambda: rules.apply_register(LEDGER, STRANGER, 1_000, SECOND, PAYEE),
        "key",
        f"receipt key {SECOND} is zero or belongs to {SECOND}",
    ),
    (
        lambda: rules.apply_register(LEDGER, STRANGER, 1_000, ZERO_ADDRESS, PAYEE),
        "key",
        f"receipt key {ZERO_ADDRESS} is zero or belongs to {STRANGER}",
    ),
    (
        lambda: rules.apply_add_stake(LEDGER, STRANGER, 1_000),
        "not registered",
        f"{STRANGER} never registered",
    ),
    (
        lambda: rules.apply_add_stake(PROVEN, PROVIDER, 1_000),
        "condemned",
        f"{PROVIDER} was condemned; its stake is lost",
    ),
    (
        lambda: rules.apply_add_stake(UNBONDING, PROVIDER, 1),
        "unbonding",
        f"the stake is unbonding until {NOW_S + 50}",
    ),
    (
        lambda: rules.apply_add_stake(LEDGER, PROVIDER, 0),
        "amount",
        f"0 more make 2001, outside 1 .. {AMOUNT_MAX}",
    ),
    (
        lambda: rules.apply_add_stake(LEDGER, PROVIDER, AMOUNT_MAX - 2_000),
        "amount",
        f"{AMOUNT_MAX - 2_000} more make {OVER}, outside 1 .. {AMOUNT_MAX}",
    ),
    (
        lambda: rules.apply_add_stake(EMPTY, PROVIDER, 999),
        "stake",
        "a stake of 999 is below 1000",
    ),
    (
        lambda: rules.apply_begin_unbonding(LEDGER, STRANGER, NOW_S),
        "not registered",
        f"{STRANGER} never registered",
    ),
    (
        lambda: rules.apply_begin_unbonding(PROVEN, PROVIDER, NOW_S),
        "condemned",
        f"{PROVIDER} was condemned; its stake is lost",
    ),
    (
        lambda: rules.apply_begin_unbonding(UNBONDING, PROVIDER, NOW_S),
        "unbonding",
        f"the stake is unbonding until {NOW_S + 50}",
    ),
    (
        lambda: rules.apply_begin_unbonding(EMPTY, PROVIDER, NOW_S),
        "stake",
        "there is no stake to take back",
    ),
    (
        lambda: rules.apply_cancel_unbonding(PROVEN, PROVIDER),
        "condemned",
        f"{PROVIDER} was condemned; its stake is lost",
    ),
    (
        lambda: rules.apply_cancel_unbonding(LEDGER, STRANGER),
        "not unbonding",
        f"the stake of {STRANGER} is not unbonding",
    ),
    (
        lambda: rules.apply_finish_unbonding(PROVEN, PROVIDER, NOW_S),
        "condemned",
        f"{PROVIDER} was condemned; its stake is lost",
    ),
    (
        lambda: rules.apply_finish_unbonding(LEDGER, STRANGER, NOW_S),
        "not unbonding",
        f"the stake of {STRANGER} is not unbonding",
    ),
    (
        lambda: rules.apply_finish_unbonding(UNBONDING, PROVIDER, NOW_S + 49),
        "locked",
        f"the stake unlocks at {NOW_S + 50}, it is {NOW_S + 49}",
    ),
    (
        lambda: rules.apply_announce_receipt_key(LEDGER, STRANGER, STRANGER, NOW_S),
        "not registered",
        f"{STRANGER} never registered",
    ),
    (
        lambda: rules.apply_announce_receipt_key(LEDGER, PROVIDER, SECOND, NOW_S),
        "key",
        f"receipt key {SECOND} is zero or belongs to {SECOND}",
    ),
    (
        lambda: rules.apply_complete_receipt_key(LEDGER, STRANGER, NOW_S),
        "not announced",
        "nothing was announced",
    ),
    (
        lambda: rules.apply_complete_receipt_key(ANNOUNCED, PROVIDER, NOW_S),
        "locked",
        f"the change waits until {NOW_S + 1}, it is {NOW_S}",
    ),
    (
        lambda: rules.apply_complete_receipt_key(
            with_provider(replace(STAKED, next_receipt_key=SECOND, next_receipt_key_from_s=NOW_S)),
            PROVIDER,
            NOW_S,
        ),
        "key",
        f"receipt key {SECOND} is zero or belongs to {SECOND}",
    ),
    (
        lambda: rules.apply_announce_payee(LEDGER, STRANGER, PAYEE, NOW_S),
        "not registered",
        f"{STRANGER} never registered",
    ),
    (
        lambda: rules.apply_announce_payee(LEDGER, PROVIDER, ZERO_ADDRESS, NOW_S),
        "payee",
        "the payee is the zero address",
    ),
    (
        lambda: rules.apply_complete_payee(LEDGER, STRANGER, NOW_S),
        "not announced",
        "nothing was announced",
    ),
    (
        lambda: rules.apply_complete_payee(ANNOUNCED, PROVIDER, NOW_S + 1),
        "locked",
        f"the change waits until {NOW_S + 2}, it is {NOW_S + 1}",
    ),
    (
        lambda: publish(caller=STRANGER),
        "not permitted",
        f"{STRANGER} is no key of {PROVIDER}",
    ),
    (lambda: publish(UNBONDING), "provider", f"the stake of {PROVIDER} does not stand"),
    (lambda: publish(revision=3), "revision", "revision 3 is not above 3"),
    (
        lambda: publish(replace(LEDGER, services={}), revision=0),
        "revision",
        "revision 0 is not above 0",
    ),
    (lambda: publish(offer_hash=ZERO_HASH), "offer", f"offer hash {ZERO_HASH} of type 'chat'"),
    (lambda: publish(service_type=""), "offer", f"offer hash {HASH} of type ''"),
    (
        lambda: rules.apply_retire_service(LEDGER, STRANGER, PROVIDER, 1),
        "not permitted",
        f"{STRANGER} is no key of {PROVIDER}",
    ),
    (
        lambda: rules.apply_retire_service(LEDGER, PROVIDER, PROVIDER, 2),
        "service",
        f"service 2 of {PROVIDER} is not on the market",
    ),
    (
        lambda: prove(sign_receipt(1, 3)),
        "no overclaim",
        "the receipt ends at sequence 3, the claim at 4",
    ),
    (
        lambda: prove(sign_receipt(300)),
        "no overclaim",
        "300 are claimed, the receipt shows 300",
    ),
    (
        lambda: prove(sign_receipt(1, user=STRANGER)),
        "unknown",
        f"nothing was ever set aside in {KEY._replace(user=STRANGER)}",
    ),
    (
        lambda: prove(sign_receipt(1, key=ATTACKER_KEY)),
        "signature",
        f"signed by {ATTACKER}, which is no key of {PROVIDER}",
    ),
    (
        lambda: prove(sign_receipt(1, provider=SECOND)),
        "signature",
        f"signed by {RECEIPT_ADDRESS}, which is no key of {SECOND}",
    ),
    (
        lambda: prove(sign_receipt(1, key=ATTACKER_KEY, provider=ZERO_ADDRESS)),
        "signature",
        f"signed by {ATTACKER}, which is no key of {ZERO_ADDRESS}",
    ),
    (
        lambda: prove(SignedReceipt(sign_receipt(1).receipt, "0x")),
        "signature",
        NOT_A_SIGNATURE,
    ),
    (
        lambda: prove(sign_receipt(1), ledger=EMPTY),
        "stake",
        f"{PROVIDER} has no stake to answer with",
    ),
    (
        lambda: prove(sign_receipt(1), NOW_S + 60, PROVEN),
        "window",
        f"victims were paid until {NOW_S + 60}, it is {NOW_S + 60}",
    ),
    (
        lambda: prove(sign_receipt(260), ledger=replace(PROVEN, compensations={KEY: 40})),
        "compensated",
        "the loss was paid back before",
    ),
    (
        lambda: prove(sign_receipt(260), ledger=with_provider(replace(CONDEMNED, pool=0))),
        "stake",
        f"nothing is left of the stake of {PROVIDER}",
    ),
    (
        lambda: prove_two(sign_receipt(1), sign_receipt(2, 5)),
        "no equivocation",
        f"one receipt is for {PLACE}, one for {(*PLACE[:3], 5)}",
    ),
    (
        lambda: prove_two(sign_receipt(1), sign_receipt(2, user=OTHER)),
        "no equivocation",
        f"one receipt is for {PLACE}, one for {(OTHER, *PLACE[1:])}",
    ),
    (
        lambda: prove_two(sign_receipt(1), sign_receipt(1)),
        "no equivocation",
        f"both are the same receipt for {PLACE}",
    ),
    (
        lambda: prove_two(sign_receipt(1), sign_receipt(2, key=ATTACKER_KEY)),
        "signature",
        f"signed by {ATTACKER}, which is no key of {PROVIDER}",
    ),
    (
        lambda: prove_two(sign_receipt(2, key=ATTACKER_KEY), sign_receipt(1)),
        "signature",
        f"signed by {ATTACKER}, which is no key of {PROVIDER}",
    ),
    (
        lambda: rules.apply_burn_rest(LEDGER, STRANGER, NOW_S),
        "not condemned",
        f"nothing was proven against {STRANGER}",
    ),
    (
        lambda: rules.apply_burn_rest(PROVEN, PROVIDER, NOW_S + 59),
        "locked",
        f"victims are paid until {NOW_S + 60}, it is {NOW_S + 59}",
    ),
    (
        lambda: rules.apply_burn_rest(
            with_provider(replace(CONDEMNED, pool=0)), PROVIDER, NOW_S + 60
        ),
        "stake",
        f"nothing is left of the stake of {PROVIDER}",
    ),
    (lambda: rules.apply_commit(LEDGER, USER, ZERO_HASH, 1, 1), "root", "the root is zero"),
    (
        lambda: rules.apply_commit(LEDGER, USER, HASH, 0, 1),
        "count",
        "0 receipts under the root, at least 1 is needed",
    ),
]


@pytest.mark.parametrize(
    ("act", "reason", "text"), CASES, ids=[f"{reason}: {text[:50]}" for _, reason, text in CASES]
)
def test_a_refusal_has_its_reason_and_says_what_disagrees(
    act: Callable[[], object], reason: str, text: str
) -> None:
    with pytest.raises(RequestError) as caught:
        act()
    assert caught.value.details == {"revert": reason}
    assert caught.value.code == REVERT_REASONS[reason].code
    assert caught.value.message == text


def test_what_is_at_the_edge_goes_through() -> None:
    """The other side of rows above whose near side `test_ledger_steps` does not hold."""
    assert rules.apply_deposit(LEDGER, USER, 1).ledger.accounts[USER] == 501
    assert rules.apply_deposit(LEDGER, STRANGER, AMOUNT_MAX).ledger.accounts[STRANGER] == AMOUNT_MAX
    assert rules.apply_withdraw(LEDGER, USER, 1).ledger.accounts[USER] == 499
    rich = replace(LEDGER, accounts={USER: AMOUNT_MAX}, refunds={}, sub_accounts={})
    assert fund(AMOUNT_MAX, ledger=rich).ledger.sub_accounts[KEY] == SubAccount(AMOUNT_MAX)
    last = replace(LEDGER, sub_accounts={KEY: SubAccount(1, AMOUNT_MAX - 10)}, refunds={})
    assert fund(9, ledger=last).ledger.sub_accounts[KEY] == SubAccount(10, AMOUNT_MAX - 10)
    many = rules.apply_open(LEDGER, USER, 0, [Fund(PROVIDER, SIGNER, 1)] * 20)
    assert many.ledger.refunds[KEY] == PendingRefund(180, NOW_S + 10)
    most = rules.apply_open(LEDGER, STRANGER, AMOUNT_MAX, [])
    assert most.ledger.accounts[STRANGER] == AMOUNT_MAX
    assert rules.apply_request_refund(LEDGER, KEY, 1, NOW_S).ledger.refunds[KEY].amount == 201
    one = replace(LEDGER, refunds={KEY: PendingRefund(1, NOW_S)})
    assert rules.apply_cancel_refund(one, KEY).ledger.refunds[KEY] == PendingRefund()
    batch = [make_claim(301, 301)] * 200
    assert rules.apply_settle(LEDGER, PROVIDER, PROVIDER, batch, HASH).ledger.escrow_held == 1_546
    whole = rules.apply_register(LEDGER, STRANGER, AMOUNT_MAX, STRANGER, PAYEE)
    assert whole.ledger.providers[STRANGER].stake == AMOUNT_MAX
    filled = rules.apply_add_stake(LEDGER, PROVIDER, AMOUNT_MAX - 2_001)
    assert filled.ledger.providers[PROVIDER].stake == AMOUNT_MAX
    assert rules.apply_add_stake(EMPTY, PROVIDER, AMOUNT_MAX).ledger.registry_held == (
        LEDGER.registry_held + AMOUNT_MAX
    )
    due = with_provider(replace(STAKED, next_payee=STRANGER, next_payee_from_s=1))
    assert rules.apply_complete_payee(due, PROVIDER, 1).ledger.providers[PROVIDER].payee == STRANGER
    again = rules.apply_announce_receipt_key(LEDGER, PROVIDER, RECEIPT_ADDRESS, NOW_S)
    assert again.ledger.providers[PROVIDER].next_receipt_key == RECEIPT_ADDRESS
    assert rules.apply_commit(LEDGER, USER, HASH, 1, 0).ledger.records[USER].number == 1


def test_one_who_has_one_base_unit_of_stake_can_be_condemned_and_it_is_burned() -> None:
    """Half, rounded up: nothing is left for a victim, and a second proof finds nothing."""
    poor = with_provider(replace(STAKED, stake=1))
    after = prove(sign_receipt(1), ledger=poor).ledger
    assert after.providers[PROVIDER] == replace(STAKED, stake=0, condemned_until_s=NOW_S + 7_200)
    assert (after.burned, after.compensations) == (12, {})
    with pytest.raises(RequestError, match="nothing is left"):
        prove(sign_receipt(1), ledger=after)
    leaving = prove(sign_receipt(1), ledger=UNBONDING).ledger.providers[PROVIDER]
    assert leaving.unbonding_until_s == 0
