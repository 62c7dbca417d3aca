"""Each named invariant refuses the state that it is there against, and says which values disagree.

An invariant that never fails proves nothing: a row is a right state, then the same with one value
that the rule forbids. More of slashing and records: `test_dispute_invariants`.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from hanse.protocol.eip712 import hash_word, uint_word
from hanse.protocol.errors import HanseError, InvariantError
from hanse.protocol.ledger import (
    Emitted,
    Ledger,
    Moved,
    PendingRefund,
    Provider,
    RecordsHead,
    SubAccount,
)
from hanse.protocol.ledger import dispute_invariants as of_disputes
from hanse.protocol.ledger import invariants as named
from hanse.protocol.limits import AMOUNT_MAX
from hanse.protocol.signatures import ZERO_HASH, keccak, to_hex
from tests.protocol.ledger_parts import (
    CONDEMNED,
    HASH,
    KEY,
    LEAVING,
    LEDGER,
    OTHER,
    OTHER_KEY,
    PAYEE,
    SECOND,
    STAKED,
    STRANGER,
    make_claim,
    sign_receipt,
    with_provider,
)
from tests.protocol.made_messages import NOW_S, PROVIDER, RECEIPT_ADDRESS, USER

NO_CLAIMS = SubAccount(0, 0, 0)


def with_account(account: SubAccount, **changes: object) -> Ledger:
    return replace(LEDGER, sub_accounts={**LEDGER.sub_accounts, KEY: account}, **changes)


def with_free(amount: int) -> Ledger:
    return replace(LEDGER, accounts={**LEDGER.accounts, USER: amount})


RAISED = with_account(SubAccount(500, 800, 5))
LEAVES = with_provider(LEAVING)
UNSTAKED = replace(STAKED, stake=0)
CLAIMED = make_claim(900, 900)
HEADS = {USER: RecordsHead(1, HASH)}


def chain_head(head: str, commit: of_disputes.Commit) -> str:
    words = uint_word(commit.count) + uint_word(commit.fee_total)
    return to_hex(keccak(hash_word(head) + hash_word(commit.root) + words))


COMMITS = [of_disputes.Commit(HASH, 2, 9), of_disputes.Commit("0x" + "cd" * 32, 1, 0)]
SECOND_HEAD = chain_head(chain_head(ZERO_HASH, COMMITS[0]), COMMITS[1])
CHAINED = replace(LEDGER, records={USER: RecordsHead(2, SECOND_HEAD)})

Check = Callable[[], None]
CASES: list[tuple[Check, Check, str]] = [
    (
        lambda: named.asset_held_equals_books(LEDGER),
        lambda: named.asset_held_equals_books(replace(LEDGER, escrow_held=1_548)),
        "Escrow's asset is 1548, accounts + sub-accounts is 1547",
    ),
    (
        lambda: named.asset_held_equals_books(
            replace(with_provider(CONDEMNED), registry_held=1_081)
        ),
        lambda: named.asset_held_equals_books(
            replace(with_provider(CONDEMNED), registry_held=1_080)
        ),
        "Registry's asset is 1080, stakes + pools + burned is 1081",
    ),
    (
        lambda: named.no_balance_is_negative(with_free(0)),
        lambda: named.no_balance_is_negative(with_free(-1)),
        f"account of {USER} holds -1, below 0",
    ),
    (
        lambda: named.no_balance_is_negative(with_account(SubAccount(0, 0))),
        lambda: named.no_balance_is_negative(with_account(SubAccount(-1, 0))),
        f"{SubAccount(-1, 0)} of {KEY} is outside 0 .. {AMOUNT_MAX}",
    ),
    (
        lambda: named.no_balance_is_negative(with_account(SubAccount(1, AMOUNT_MAX - 1))),
        lambda: named.no_balance_is_negative(with_account(SubAccount(1, AMOUNT_MAX))),
        f"{SubAccount(1, AMOUNT_MAX)} of {KEY} is outside 0 .. {AMOUNT_MAX}",
    ),
    (
        lambda: named.no_balance_is_negative(with_account(SubAccount(2, 0))),
        lambda: named.no_balance_is_negative(with_account(SubAccount(2, -1))),
        f"{SubAccount(2, -1)} of {KEY} is outside 0 .. {AMOUNT_MAX}",
    ),
    (
        lambda: named.no_balance_is_negative(with_provider(Provider(stake=0))),
        lambda: named.no_balance_is_negative(with_provider(Provider(stake=-1))),
        f"{PROVIDER}: stake -1 or pool 0 is below 0",
    ),
    (
        lambda: named.no_balance_is_negative(with_provider(Provider(stake=1))),
        lambda: named.no_balance_is_negative(with_provider(Provider(pool=-1))),
        f"{PROVIDER}: stake 0 or pool -1 is below 0",
    ),
    (
        lambda: named.claimed_within_highest_voucher(LEDGER, {KEY: 300}),
        lambda: named.claimed_within_highest_voucher(LEDGER, {KEY: 299}),
        f"{KEY}: claimed 300, signed 299",
    ),
    (
        lambda: named.claimed_within_highest_voucher(replace(LEDGER, sub_accounts={}), {}),
        lambda: named.claimed_within_highest_voucher(with_account(SubAccount(0, 1)), {}),
        f"{KEY}: claimed 1, signed 0",
    ),
    (
        lambda: named.claimed_and_sequence_never_fall(LEDGER, LEDGER),
        lambda: named.claimed_and_sequence_never_fall(
            LEDGER, with_account(SubAccount(1_000, 299, 4))
        ),
        f"{KEY}: {SubAccount(1_000, 300, 4)} became {SubAccount(1_000, 299, 4)}",
    ),
    (
        lambda: named.claimed_and_sequence_never_fall(LEDGER, RAISED),
        lambda: named.claimed_and_sequence_never_fall(
            LEDGER, with_account(SubAccount(1_000, 300, 3))
        ),
        f"{KEY}: {SubAccount(1_000, 300, 4)} became {SubAccount(1_000, 300, 3)}",
    ),
    (
        lambda: named.claimed_and_sequence_never_fall(
            replace(LEDGER, sub_accounts={OTHER_KEY: NO_CLAIMS}), replace(LEDGER, sub_accounts={})
        ),
        lambda: named.claimed_and_sequence_never_fall(LEDGER, replace(LEDGER, sub_accounts={})),
        f"{KEY}: {SubAccount(1_000, 300, 4)} became {NO_CLAIMS}",
    ),
    (
        lambda: named.only_the_signer_raises_what_is_owed(
            LEDGER, RAISED, [make_claim(800, 9), make_claim(700, 9)], PROVIDER
        ),
        lambda: named.only_the_signer_raises_what_is_owed(
            LEDGER, RAISED, [make_claim(799, 9), make_claim(900, 9, user=OTHER)], PROVIDER
        ),
        f"{KEY}: claimed rose to 800, signed 799",
    ),
    (
        lambda: named.only_the_signer_raises_what_is_owed(LEDGER, LEDGER, (), None),
        lambda: named.only_the_signer_raises_what_is_owed(LEDGER, RAISED, (), PROVIDER),
        f"{KEY}: claimed rose to 800, signed 0",
    ),
    (
        lambda: named.only_the_signer_raises_what_is_owed(RAISED, LEDGER, (), None),
        lambda: named.only_the_signer_raises_what_is_owed(
            LEDGER, RAISED, [make_claim(801, 9)], SECOND
        ),
        f"{KEY}: claimed rose to 800, signed 801",
    ),
    (
        lambda: named.only_the_signer_raises_what_is_owed(
            replace(LEDGER, sub_accounts={}), LEDGER, [make_claim(300, 9)], PROVIDER
        ),
        lambda: named.only_the_signer_raises_what_is_owed(
            replace(LEDGER, sub_accounts={}), with_account(SubAccount(0, 1)), (), PROVIDER
        ),
        f"{KEY}: claimed rose to 1, signed 0",
    ),
    (
        lambda: named.no_admin_key_moves_funds(LEDGER, with_free(499), USER),
        lambda: named.no_admin_key_moves_funds(LEDGER, with_free(499), PROVIDER),
        f"{PROVIDER} took 1 of {USER}, 0 was signed",
    ),
    (
        lambda: named.no_admin_key_moves_funds(LEDGER, RAISED, PROVIDER),
        lambda: named.no_admin_key_moves_funds(
            LEDGER, with_account(SubAccount(499, 800, 5)), PROVIDER
        ),
        f"{PROVIDER} took 501 of {USER}, 500 was signed",
    ),
    (
        lambda: named.no_admin_key_moves_funds(
            replace(LEDGER, accounts={}), with_account(SubAccount(999, 300, 4), accounts={}), USER
        ),
        lambda: named.no_admin_key_moves_funds(
            replace(LEDGER, accounts={}),
            with_account(SubAccount(999, 300, 4), accounts={}),
            STRANGER,
        ),
        f"{STRANGER} took 1 of {USER}, 0 was signed",
    ),
    (
        lambda: named.stake_leaves_only_after_unbonding(
            LEAVES, with_provider(UNSTAKED), NOW_S + 50
        ),
        lambda: named.stake_leaves_only_after_unbonding(
            LEAVES, with_provider(UNSTAKED), NOW_S + 49
        ),
        f"{PROVIDER}: {LEAVING} became {UNSTAKED} at {NOW_S + 49}",
    ),
    (
        lambda: named.stake_leaves_only_after_unbonding(LEDGER, LEDGER, NOW_S),
        lambda: named.stake_leaves_only_after_unbonding(LEDGER, with_provider(UNSTAKED), NOW_S),
        f"{PROVIDER}: {STAKED} became {UNSTAKED} at {NOW_S}",
    ),
    (
        lambda: named.stake_leaves_only_after_unbonding(
            LEDGER, with_provider(replace(STAKED, stake=2_002)), NOW_S
        ),
        lambda: named.stake_leaves_only_after_unbonding(
            LEAVES, with_provider(replace(STAKED, stake=1)), NOW_S + 50
        ),
        f"{PROVIDER}: {LEAVING} became {replace(STAKED, stake=1)} at {NOW_S + 50}",
    ),
    (
        lambda: named.stake_leaves_only_after_unbonding(LEDGER, with_provider(CONDEMNED), NOW_S),
        lambda: named.stake_leaves_only_after_unbonding(
            with_provider(replace(CONDEMNED, stake=1)), with_provider(CONDEMNED), NOW_S
        ),
        f"{PROVIDER}: {replace(CONDEMNED, stake=1)} became {CONDEMNED} at {NOW_S}",
    ),
    (
        lambda: named.stake_leaves_only_after_unbonding(
            with_provider(replace(STAKED, unbonding_until_s=1)), with_provider(UNSTAKED), 1
        ),
        lambda: named.stake_leaves_only_after_unbonding(
            with_provider(replace(STAKED, unbonding_until_s=2)), with_provider(UNSTAKED), 1
        ),
        f"{PROVIDER}: {replace(STAKED, unbonding_until_s=2)} became {UNSTAKED} at 1",
    ),
    (
        lambda: named.receipt_key_belongs_to_one_provider(LEDGER, LEDGER),
        lambda: named.receipt_key_belongs_to_one_provider(
            LEDGER,
            replace(LEDGER, receipt_keys={**LEDGER.receipt_keys, RECEIPT_ADDRESS: SECOND}),
        ),
        f"holder of {RECEIPT_ADDRESS} is {SECOND}, before is {PROVIDER}",
    ),
    (
        lambda: named.receipt_key_belongs_to_one_provider(replace(LEDGER, receipt_keys={}), LEDGER),
        lambda: named.receipt_key_belongs_to_one_provider(
            LEDGER, with_provider(replace(STAKED, receipt_key=STRANGER))
        ),
        f"receipt key's holder is None, owner is {PROVIDER}",
    ),
    (
        lambda: named.user_can_exit_within_lock_time(LEDGER, STRANGER, NOW_S),
        lambda: named.user_can_exit_within_lock_time(
            replace(LEDGER, accounts={}, refunds={KEY: PendingRefund(1_000, NOW_S + 3_601)}),
            USER,
            NOW_S,
        ),
        f"the refund unlocks at {NOW_S + 3_601}, it is {NOW_S + 3_600}",
    ),
    (
        lambda: named.provider_can_claim_what_was_signed(LEDGER, PROVIDER, [CLAIMED]),
        lambda: named.provider_can_claim_what_was_signed(
            LEDGER, PROVIDER, [replace(CLAIMED, claimed=899)]
        ),
        f"paid to {PROVIDER} is 599, signed and held is 600",
    ),
    (
        lambda: named.provider_can_claim_what_was_signed(
            LEDGER, PROVIDER, [make_claim(200, 200), make_claim(5_000, 5_000)]
        ),
        lambda: named.provider_can_claim_what_was_signed(
            LEDGER, PROVIDER, [CLAIMED, replace(make_claim(9, 9, user=OTHER), r=bytes(32))]
        ),
        f"paid to {PROVIDER} is 600, signed and held is 607",
    ),
    (
        lambda: named.provider_can_claim_what_was_signed(
            LEDGER, PROVIDER, [make_claim(900, 900, 3), make_claim(9, 9, user=STRANGER)]
        ),
        lambda: named.provider_can_claim_what_was_signed(
            LEDGER, PROVIDER, [make_claim(900, 900, 4, sequence_max=3)]
        ),
        f"paid to {PROVIDER} is 0, signed and held is 600",
    ),
    (
        lambda: of_disputes.stake_is_conserved(
            LEDGER,
            with_provider(replace(STAKED, stake=2_004)),
            (
                Emitted("Registered", {"stake": 10, "amount": 0}),
                Moved(PROVIDER, 99),
                Emitted("Deposited", {"amount": 99}),
                Emitted("UnbondingFinished", {"stake": 12, "amount": 0}),
                Emitted("StakeAdded", {"stake": 0, "amount": 8}),
                Emitted("Slashed", {"stake": 0, "amount": 3}),
            ),
        ),
        lambda: of_disputes.stake_is_conserved(
            LEDGER, LEDGER, (Emitted("StakeAdded", {"stake": 9, "amount": 2}),)
        ),
        "staked is 3012, before + moved is 3014",
    ),
    (
        lambda: of_disputes.condemned_is_for_ever(
            with_provider(replace(STAKED, pool=1)), with_provider(replace(STAKED, pool=2))
        ),
        lambda: of_disputes.condemned_is_for_ever(
            with_provider(CONDEMNED), with_provider(replace(CONDEMNED, condemned_until_s=9))
        ),
        f"{PROVIDER} was condemned: {CONDEMNED} became {replace(CONDEMNED, condemned_until_s=9)}",
    ),
    (
        lambda: of_disputes.condemned_is_for_ever(LEDGER, LEAVES),
        lambda: of_disputes.condemned_is_for_ever(
            LEDGER, with_provider(replace(CONDEMNED, unbonding_until_s=1))
        ),
        f"{PROVIDER} is condemned and has {replace(CONDEMNED, unbonding_until_s=1)}",
    ),
    (
        lambda: of_disputes.condemned_is_for_ever(LEDGER, replace(LEDGER, burned=11)),
        lambda: of_disputes.condemned_is_for_ever(LEDGER, replace(LEDGER, burned=10)),
        "burned fell from 11 to 10",
    ),
    (
        lambda: of_disputes.half_of_a_slashed_stake_is_burned(
            LEDGER, replace(with_provider(CONDEMNED), burned=1_012)
        ),
        lambda: of_disputes.half_of_a_slashed_stake_is_burned(
            LEDGER, replace(with_provider(CONDEMNED), burned=1_011)
        ),
        f"{PROVIDER}: 1000 of 2001 were burned",
    ),
    (
        lambda: of_disputes.half_of_a_slashed_stake_is_burned(
            with_provider(replace(STAKED, stake=2_000)),
            replace(with_provider(CONDEMNED), burned=1_011),
        ),
        lambda: of_disputes.half_of_a_slashed_stake_is_burned(
            with_provider(replace(STAKED, stake=2_000)),
            replace(with_provider(CONDEMNED), burned=1_010),
        ),
        f"{PROVIDER}: 999 of 2000 were burned",
    ),
    (
        lambda: of_disputes.half_of_a_slashed_stake_is_burned(
            with_provider(replace(CONDEMNED, stake=9)), with_provider(CONDEMNED)
        ),
        lambda: of_disputes.half_of_a_slashed_stake_is_burned(
            with_provider(replace(STAKED, stake=1)), with_provider(CONDEMNED)
        ),
        f"{PROVIDER}: 0 of 1 were burned",
    ),
    (
        lambda: of_disputes.half_of_a_slashed_stake_is_burned(
            replace(LEDGER, providers={}), with_provider(CONDEMNED)
        ),
        lambda: of_disputes.half_of_a_slashed_stake_is_burned(
            LEDGER, replace(with_provider(CONDEMNED), burned=12)
        ),
        f"{PROVIDER}: 1 of 2001 were burned",
    ),
    (
        lambda: of_disputes.victim_never_paid_above_loss(
            replace(LEDGER, compensations={KEY: 0}), {KEY: [sign_receipt(400).receipt]}
        ),
        lambda: of_disputes.victim_never_paid_above_loss(
            replace(LEDGER, compensations={KEY: 1}), {KEY: [sign_receipt(400).receipt]}
        ),
        f"{KEY}: paid back 1, claimed 300, receipt 400",
    ),
    (
        lambda: of_disputes.victim_never_paid_above_loss(
            replace(LEDGER, compensations={KEY._replace(user=STRANGER): 0}), {}
        ),
        lambda: of_disputes.victim_never_paid_above_loss(
            replace(LEDGER, compensations={KEY._replace(user=STRANGER): 1}), {}
        ),
        f"{KEY._replace(user=STRANGER)}: paid back 1, claimed 0, receipt 0",
    ),
    (
        lambda: of_disputes.honest_provider_is_never_slashed(LEDGER, ()),
        lambda: of_disputes.honest_provider_is_never_slashed(with_provider(CONDEMNED), {SECOND}),
        f"{PROVIDER} is condemned until {NOW_S + 60} and never cheated",
    ),
    (
        lambda: of_disputes.numbers_are_consecutive(LEDGER, replace(LEDGER, records=HEADS)),
        lambda: of_disputes.numbers_are_consecutive(
            LEDGER, replace(LEDGER, records={USER: RecordsHead(2, HASH)})
        ),
        f"{USER}: 0, then 2",
    ),
    (
        lambda: of_disputes.numbers_are_consecutive(
            replace(LEDGER, records=HEADS), replace(LEDGER, records=HEADS)
        ),
        lambda: of_disputes.numbers_are_consecutive(
            replace(LEDGER, records=HEADS), replace(LEDGER, records={USER: RecordsHead(0, HASH)})
        ),
        f"{USER}: 1, then 0",
    ),
    (
        lambda: of_disputes.head_names_all_commits(LEDGER, {}),
        lambda: of_disputes.head_names_all_commits(replace(LEDGER, records=HEADS), {USER: []}),
        f"head of {USER} is {HASH}, chain of its commits is {ZERO_HASH}",
    ),
    (
        lambda: of_disputes.head_names_all_commits(LEDGER, {USER: []}),
        lambda: of_disputes.head_names_all_commits(
            replace(LEDGER, records={USER: RecordsHead(1, ZERO_HASH)}), {USER: []}
        ),
        f"number of {USER} is 1, its commits is 0",
    ),
    (
        lambda: of_disputes.head_names_all_commits(CHAINED, {USER: COMMITS}),
        lambda: of_disputes.head_names_all_commits(CHAINED, {USER: [*COMMITS, COMMITS[0]]}),
        f"head of {USER} is {SECOND_HEAD}, chain of its commits is "
        + chain_head(SECOND_HEAD, COMMITS[0]),
    ),
    (
        lambda: of_disputes.only_the_recorder_extends_its_chain(
            LEDGER, replace(LEDGER, records={USER: RecordsHead()}), PAYEE
        ),
        lambda: of_disputes.only_the_recorder_extends_its_chain(LEDGER, CHAINED, PAYEE),
        f"{PAYEE} changed the head of {USER}",
    ),
    (
        lambda: of_disputes.only_the_recorder_extends_its_chain(
            LEDGER, replace(LEDGER, records=HEADS), USER
        ),
        lambda: of_disputes.only_the_recorder_extends_its_chain(
            LEDGER, replace(LEDGER, records=HEADS), PAYEE
        ),
        f"{PAYEE} changed the head of {USER}",
    ),
    (
        lambda: of_disputes.only_the_recorder_extends_its_chain(
            replace(LEDGER, records=HEADS), replace(LEDGER, records=HEADS), PAYEE
        ),
        lambda: of_disputes.only_the_recorder_extends_its_chain(
            replace(LEDGER, records=HEADS),
            replace(LEDGER, records={USER: RecordsHead(1, ZERO_HASH)}),
            PAYEE,
        ),
        f"{PAYEE} changed the head of {USER}",
    ),
]


@pytest.mark.parametrize(
    ("holds", "breaks", "text"), CASES, ids=[text[:50] for _, _, text in CASES]
)
def test_the_right_state_passes_and_the_wrong_one_is_named(
    holds: Check, breaks: Check, text: str
) -> None:
    holds()
    with pytest.raises(HanseError) as caught:  # a refusal of the ledger passes through
        breaks()
    assert caught.value.message == text


def test_a_broken_invariant_has_its_code() -> None:
    with pytest.raises(InvariantError) as caught:
        named.require(False, "it does not hold")
    assert (caught.value.code, caught.value.message) == ("invariant_broken", "it does not hold")


@pytest.mark.parametrize(
    "ledger",
    [
        LEDGER,
        replace(LEDGER, refunds={}),
        replace(LEDGER, refunds={KEY: PendingRefund(1_000, NOW_S + 3_600)}),
        replace(LEDGER, refunds={KEY: PendingRefund(999, NOW_S)}),
        with_account(SubAccount(0, 1_300, 9), refunds={KEY: PendingRefund(5, NOW_S)}),
        with_account(SubAccount(1, 1_299, 9), refunds={KEY: PendingRefund(5, NOW_S)}),
        with_account(SubAccount(1), accounts={}, refunds={}),
    ],
)
def test_from_every_state_a_user_can_leave(ledger: Ledger) -> None:
    named.user_can_exit_within_lock_time(ledger, USER, NOW_S)


def test_nobody_can_claim_who_is_unknown_or_has_nothing() -> None:
    named.provider_can_claim_what_was_signed(LEDGER, STRANGER, [CLAIMED])
    named.provider_can_claim_what_was_signed(LEDGER, PROVIDER, [])
