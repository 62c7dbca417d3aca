"""Proofs of overclaiming and of equivocation: what they take, from whom, for whom, and when not."""

import secrets
from dataclasses import replace
from typing import Any

import pytest
from eth_account.messages import encode_typed_data

from hanse.protocol.eip712 import Domain
from hanse.protocol.messages import FinishReason, Usage
from tests.contracts.dispute_parts import Case, make_receipt, sign_receipt
from tests.contracts.local_evm import CHAIN_ID, Hanse, Key, key_of, reverts

S_MASK = 2**255 - 1
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
STAKE = 100_000_000
HALF = STAKE // 2


@pytest.fixture
def case(hanse: Hanse, depositor: Key, provider: Key, session: Key, receipt_key: Key) -> Case:
    """400 are set aside for the provider, nothing is claimed; the stake is the minimum."""
    return Case(hanse, depositor, provider, session, receipt_key, key_of("reporter"))


def other_user(case: Case, name: str, amount: int) -> Case:
    """The same provider's sub-account of another user, with `amount` set aside."""
    user = key_of(name)
    case.hanse.mint(user.address, amount)
    fund = (case.provider.address, user.address, amount)
    case.hanse.escrow_call(user, "open", amount, [fund])
    return replace(case, user=user, signer=user)


def assert_conserved(case: Case, stakes_in: int = STAKE, others: int = 0) -> None:
    """Every base unit of the stake is where it should be."""
    info = case.info()
    held = case.hanse.held(case.hanse.registry)
    assert held == info["stake"] + info["pool"] + case.burned()
    assert held + case.compensated() + others == stakes_in


# ---------------------------------------------------------------- overclaim


@pytest.mark.parametrize("later", [0, 1, 5])
def test_an_overclaim_is_slashed_and_the_user_paid_back(case: Case, later: int) -> None:
    case.settle(claimed=300, sequence=4)
    free = case.hanse.account(case.user)
    outcome = case.overclaim(case.receipt(4 + later, 120))
    assert outcome.output == (180,)
    assert outcome.event("OverclaimProven") == {
        "user": case.user.address,
        "provider": case.provider.address,
        "signer": case.signer.address,
        "sequence": 4 + later,
        "claimed": 300,
        "cumulative_fee": 120,
        "loss": 180,
        "compensation": 180,
        "reporter": case.reporter.address,
    }
    until_s = case.hanse.chain.now_s + case.hanse.terms.dispute_window_s
    assert outcome.event("Condemned") == {
        "provider": case.provider.address,
        "stake": STAKE,
        "burned": HALF,
        "pool": HALF,
        "until_s": until_s,
    }
    assert outcome.event("Slashed") == {
        "provider": case.provider.address,
        "amount": 180,
        "pool": HALF - 180,
    }
    assert case.hanse.account(case.user) == free + 180
    assert case.hanse.held(case.reporter.address) == 0
    assert case.info() == {
        "stake": 0,
        "unbonding_until_s": 0,
        "pool": HALF - 180,
        "condemned_until_s": until_s,
    }
    assert_conserved(case)


def test_the_compensation_can_be_withdrawn_by_the_user(case: Case) -> None:
    case.settle(claimed=300, sequence=4)
    case.overclaim(case.receipt(4, 120))
    wallet = case.hanse.held(case.user.address)
    case.hanse.escrow_call(case.user, "withdraw", 600 + 180)
    assert case.hanse.held(case.user.address) == wallet + 780


@pytest.mark.parametrize(
    ("sequence", "cumulative_fee", "why"),
    [
        (4, 300, "claimed exactly what the receipt says"),
        (4, 301, "claimed less than it says, as after a partial claim"),
        (9, 2**96, "claimed less than a later one says"),
        (3, 120, "an earlier receipt says nothing about later requests"),
        (0, 0, "the sum before the first request is 0 for everybody"),
    ],
)
def test_an_honest_claim_cannot_be_proven_wrong(
    case: Case, sequence: int, cumulative_fee: int, why: str
) -> None:
    case.settle(claimed=300, sequence=4)
    with reverts("no overclaim"):
        case.overclaim(case.receipt(sequence, cumulative_fee))
    assert case.info()["stake"] == STAKE, why


def test_a_partial_claim_is_held_to_what_it_took(case: Case) -> None:
    """The claim asked for 900 and got the 400 that were there: the loss is what was taken."""
    case.settle(claimed=900, sequence=4)
    with reverts("no overclaim"):
        case.overclaim(case.receipt(4, 400))
    assert case.overclaim(case.receipt(4, 399)).output == (1,)


def test_one_base_unit_too_much_is_enough(case: Case) -> None:
    case.settle(claimed=300, sequence=4)
    assert case.overclaim(case.receipt(4, 299)).output == (1,)


def test_the_same_proof_pays_once(case: Case) -> None:
    case.settle(claimed=300, sequence=4)
    proof = case.receipt(4, 120)
    case.overclaim(proof)
    with reverts("compensated"):
        case.overclaim(proof)
    with reverts("compensated"):
        case.overclaim(case.receipt(4, 121))
    assert_conserved(case)


def test_a_proof_that_shows_more_pays_the_difference(case: Case) -> None:
    case.settle(claimed=300, sequence=4)
    assert case.overclaim(case.receipt(4, 200)).output == (100,)
    assert case.overclaim(case.receipt(5, 120)).output == (80,)
    case.settle(claimed=390, sequence=4)
    assert case.overclaim(case.receipt(4, 200)).output == (10,)
    assert case.compensated() == 390 - 200
    assert_conserved(case)


@pytest.mark.parametrize("unknown", ["user", "signer"])
def test_a_sub_account_that_was_never_funded_proves_nothing(case: Case, unknown: str) -> None:
    case.settle(claimed=300, sequence=4)
    with reverts("unknown"):
        case.overclaim(case.receipt(4, 0, **{unknown: key_of("nobody").address}))


def test_nothing_claimed_is_no_overclaim(case: Case) -> None:
    with reverts("no overclaim"):
        case.overclaim(case.receipt(1, 0))


# ---------------------------------------------------------------- equivocation


CHANGES: dict[str, Any] = {
    "request_hash": "0x" + "01" * 32,
    "response_hash": "0x" + "02" * 32,
    "usage": Usage(101, 20, 30),
    "fee": 8,
    "cumulative_fee": 121,
    "finish_reason": FinishReason.LENGTH,
    "finished_at": 1_800_000_001,
    "commitment_root": "0x" + "03" * 32,
}


@pytest.mark.parametrize("field", CHANGES)
def test_two_receipts_that_differ_in_any_field_condemn(case: Case, field: str) -> None:
    first = case.receipt(4, 120)
    fields = {"cumulative_fee": 120, field: CHANGES[field]}
    second = case.receipt(4, **fields)
    outcome = case.equivocation(first, second)
    assert outcome.event("EquivocationProven") == {
        "user": case.user.address,
        "provider": case.provider.address,
        "signer": case.signer.address,
        "sequence": 4,
        "loss": 0,
        "compensation": 0,
        "reporter": case.reporter.address,
    }
    assert case.info()["pool"] == HALF
    assert not case.hanse.chain.view(case.hanse.registry, "is_active", case.provider.address)
    with reverts("compensated"):
        case.equivocation(first, second)
    assert_conserved(case)


@pytest.mark.parametrize(("claimed", "loss"), [(90, 0), (120, 0), (150, 30), (200, 80), (390, 80)])
@pytest.mark.parametrize("swapped", [False, True])
def test_what_only_the_dearer_receipt_covers_is_paid_back(
    case: Case, claimed: int, loss: int, swapped: bool
) -> None:
    case.settle(claimed=claimed, sequence=4)
    pair = [case.receipt(4, 120), case.receipt(4, 200)]
    first, second = reversed(pair) if swapped else pair
    outcome = case.equivocation(first, second)
    assert outcome.event("EquivocationProven")["loss"] == loss
    assert outcome.output == (loss,) == (case.compensated(),)
    assert_conserved(case)


def test_the_same_receipt_twice_is_no_equivocation(case: Case) -> None:
    """Also if it was signed twice: ECDSA has many signatures for one message."""
    once = case.receipt(4, 120)
    with reverts("no equivocation"):
        case.equivocation(once, once)
    receipt = make_receipt(case.user, case.provider, case.signer, 4, 120)
    digest = case.hanse.domain.digest(receipt.struct_hash())
    again = case.receipt_key.secret.sign_recoverable(
        digest,
        hasher=None,
        custom_nonce=_other_nonce(),
    )
    r, s, parity = again[:32], int.from_bytes(again[32:64], "big"), again[64]
    assert r != once[1]
    with reverts("no equivocation"):
        case.equivocation(once, (once[0], r, parity << 255 | s))


def _other_nonce() -> tuple[Any, Any]:
    from coincurve._libsecp256k1 import ffi, lib

    seed = ffi.new("unsigned char [32]", secrets.token_bytes(32))
    return (lib.secp256k1_nonce_function_default, seed)


def test_receipts_of_different_places_are_no_equivocation(case: Case) -> None:
    stranger = key_of("stranger")
    first = case.receipt(4, 120)
    for other in (
        case.receipt(5, 120),
        case.receipt(4, 200, user=stranger.address),
        case.receipt(4, 200, signer=stranger.address),
        case.receipt(4, 200, provider=stranger.address),
    ):
        with reverts("no equivocation"):
            case.equivocation(first, other)
    assert case.info()["stake"] == STAKE


def test_equivocation_where_nothing_was_ever_set_aside_is_none(case: Case) -> None:
    nobody = key_of("nobody").address
    with reverts("unknown"):
        case.equivocation(case.receipt(4, 120, user=nobody), case.receipt(4, 200, user=nobody))


# ---------------------------------------------------------------- both for one sub-account


def test_overclaim_and_equivocation_of_one_sub_account_pay_the_greater_loss(case: Case) -> None:
    """Their losses overlap, both being parts of the one claimed amount."""
    case.settle(claimed=390, sequence=4)
    assert case.equivocation(case.receipt(4, 120), case.receipt(4, 200)).output == (80,)
    assert case.overclaim(case.receipt(4, 200)).output == (390 - 200 - 80,)
    with reverts("compensated"):
        case.equivocation(case.receipt(3, 10), case.receipt(3, 190))
    assert case.overclaim(case.receipt(4, 120)).output == (80,)
    assert case.compensated() == 390 - 120
    assert_conserved(case)


# ---------------------------------------------------------------- signatures


def forged(case: Case, how: str) -> tuple[tuple[Any, ...], bytes, int]:
    receipt = make_receipt(case.user, case.provider, case.signer, 4, 120)
    domain = case.hanse.domain
    row, r, vs = sign_receipt(receipt, case.receipt_key, domain)
    if how == "malleable":
        # The twin's s has its top bit set, where EIP-2098 has the parity: there is no room for it.
        return row, r, (vs ^ 1 << 255) & ~S_MASK | (ORDER - (vs & S_MASK)) & S_MASK
    if how == "high s":
        return row, r, vs & ~S_MASK | ORDER // 2 + 1
    if how == "other parity":
        return row, r, vs ^ 1 << 255
    if how == "zero":
        return row, bytes(32), 0
    if how == "signed by the owner":
        return sign_receipt(receipt, case.provider, domain)
    if how == "signed by the user":
        return sign_receipt(receipt, case.user, domain)
    if how == "another chain":
        return sign_receipt(receipt, case.receipt_key, Domain(CHAIN_ID + 1, domain.escrow))
    if how == "another escrow":
        return sign_receipt(receipt, case.receipt_key, Domain(CHAIN_ID, case.hanse.registry))
    if how == "another field":
        return (*row[:10], 119, *row[11:]), r, vs
    raise AssertionError(how)


FORGERIES = [
    "malleable",
    "high s",
    "other parity",
    "zero",
    "signed by the owner",
    "signed by the user",
    "another chain",
    "another escrow",
    "another field",
]


@pytest.mark.parametrize("how", FORGERIES)
def test_a_false_accusation_costs_its_maker_only(case: Case, how: str) -> None:
    case.settle(claimed=300, sequence=4)
    bad, good = forged(case, how), case.receipt(4, 121)
    with reverts("signature"):
        case.overclaim(bad)
    for pair in ((bad, good), (good, bad)):
        with reverts("signature"):
            case.equivocation(*pair)
    assert case.info()["stake"] == STAKE
    assert case.info()["condemned_until_s"] == 0


def test_another_providers_receipt_key_accuses_nobody(case: Case) -> None:
    case.settle(claimed=300, sequence=4)
    other, other_key = key_of("other provider"), key_of("other receipt key")
    case.hanse.register(other, other_key)
    as_other = replace(case, receipt_key=other_key)
    with reverts("signature"):
        case.overclaim(as_other.receipt(4, 0))
    # Nor can it be made to answer for the first one's claims.
    with reverts("unknown"):
        case.overclaim(as_other.receipt(4, 0, provider=other.address))
    zero = "0x" + "00" * 20
    stranger = replace(case, receipt_key=key_of("never registered"))
    with reverts("signature"):
        case.overclaim(stranger.receipt(4, 0, provider=zero))


def test_receipts_of_an_old_receipt_key_count_for_ever(case: Case) -> None:
    case.settle(claimed=300, sequence=4)
    proof = case.receipt(4, 120)
    new_key = key_of("new receipt key")
    case.hanse.registry_call(case.provider, "announce_receipt_key", new_key.address)
    early = replace(case, receipt_key=new_key)
    with reverts("signature"):
        case.overclaim(early.receipt(4, 120))
    case.hanse.chain.advance(case.hanse.terms.key_delay_s)
    case.hanse.registry_call(case.provider, "complete_receipt_key", case.provider.address)
    outcome = case.equivocation(proof, early.receipt(4, 200))
    assert outcome.output == (80,)
    assert case.overclaim(proof).output == (100,)


def test_the_digest_is_eip_712s(case: Case) -> None:
    """A wallet's general encoder signs what the contract accepts, at the fields' extremes too."""
    from eth_account import Account

    case.settle(claimed=300, sequence=4)
    receipt = make_receipt(case.user, case.provider, case.signer, 2**64, 0)
    row = (*case.receipt(2**64, 0)[0][:4], b"\xff" * 32, bytes(32), 2**256 - 1, 1, 2, 3, 0, 255, 4)
    row = (*row, b"\x07" * 32)
    names = receipt.TYPE[8:-1].split(",")
    fields = [dict(zip(("type", "name"), name.split(" "), strict=True)) for name in names]
    message = dict(zip((field["name"] for field in fields), row, strict=True))
    domain = {
        "name": "Hanse",
        "version": "1",
        "chainId": CHAIN_ID,
        "verifyingContract": case.hanse.escrow,
    }
    typed = encode_typed_data(domain, {"Receipt": fields}, message)
    made = Account.sign_message(typed, case.receipt_key.secret.secret)
    vs = (made.v - 27) << 255 | made.s
    assert case.overclaim((row, made.r.to_bytes(32, "big"), vs)).output == (300,)


def test_after_a_fork_of_the_chain_its_receipts_do_not_count_on_the_other(case: Case) -> None:
    case.settle(claimed=300, sequence=4)
    artifact = case.hanse.chain.artifacts[case.hanse.escrow]
    fork_id = CHAIN_ID + 1
    receipt = make_receipt(case.user, case.provider, case.signer, 4, 120)
    for domain_id, chain_id, counts in (
        (CHAIN_ID, CHAIN_ID, True),
        (CHAIN_ID, fork_id, False),
        (fork_id, fork_id, True),
    ):
        proof = sign_receipt(receipt, case.receipt_key, Domain(domain_id, case.hanse.escrow))
        data = artifact.encode_call("prove_overclaim", *proof)
        sent = (case.reporter.address, case.hanse.escrow, data, chain_id)
        if counts:
            assert case.hanse.chain.logs_on_fork(*sent)
        else:
            with pytest.raises(RuntimeError, match=b"signature".hex()):
                case.hanse.chain.logs_on_fork(*sent)


# ---------------------------------------------------------------- the stake and the window


def condemn(case: Case) -> Case:
    """By a second user's proof, so that `case` has everything ahead of it."""
    other = other_user(case, "first victim", 50)
    other.settle(claimed=50, sequence=1)
    assert other.overclaim(other.receipt(1, 49)).output == (1,)
    return other


def test_without_a_stake_there_is_nothing_to_prove_against(case: Case) -> None:
    case.settle(claimed=300, sequence=4)
    case.hanse.registry_call(case.provider, "begin_unbonding")
    case.hanse.chain.advance(case.hanse.terms.unbonding_time_s)
    case.hanse.registry_call(case.provider, "finish_unbonding", case.provider.address)
    with reverts("stake"):
        case.overclaim(case.receipt(4, 120))
    with reverts("stake"):
        case.equivocation(case.receipt(4, 120), case.receipt(4, 200))
    assert case.info()["condemned_until_s"] == 0


def test_stake_that_comes_back_answers_for_what_was_done_before(case: Case) -> None:
    test_without_a_stake_there_is_nothing_to_prove_against(case)
    case.hanse.mint(case.provider.address, STAKE, case.hanse.registry)
    case.hanse.registry_call(case.provider, "add_stake", STAKE)
    assert case.overclaim(case.receipt(4, 120)).output == (180,)


def test_a_stake_that_unbonds_still_answers_until_it_has_left(case: Case) -> None:
    case.settle(claimed=300, sequence=4)
    case.hanse.registry_call(case.provider, "begin_unbonding")
    case.hanse.chain.advance(case.hanse.terms.unbonding_time_s)
    assert case.overclaim(case.receipt(4, 120)).output == (180,)
    assert case.info()["unbonding_until_s"] == 0
    with reverts("condemned"):
        case.hanse.registry_call(case.provider, "finish_unbonding", case.provider.address)
    assert_conserved(case)


def test_a_claim_on_the_last_day_can_be_disputed_for_the_whole_window(case: Case) -> None:
    """Unbonding outlasts the lock time and the dispute window together."""
    terms = case.hanse.terms
    case.hanse.registry_call(case.provider, "begin_unbonding")
    case.hanse.chain.advance(terms.lock_time_s)
    case.settle(claimed=300, sequence=4)
    case.hanse.chain.advance(terms.dispute_window_s - 1)
    with reverts("locked"):
        case.hanse.registry_call(case.provider, "finish_unbonding", case.provider.address)
    assert case.overclaim(case.receipt(4, 120)).output == (180,)


def test_the_condemned_can_neither_add_take_publish_nor_be_funded(case: Case) -> None:
    condemn(case)
    hanse, owner = case.hanse, case.provider
    hanse.mint(owner.address, STAKE, hanse.registry)
    for function, arguments in (
        ("add_stake", (STAKE,)),
        ("begin_unbonding", ()),
        ("cancel_unbonding", ()),
        ("finish_unbonding", (owner.address,)),
    ):
        with reverts("condemned"):
            hanse.registry_call(owner, function, *arguments)
    with reverts("registered"):
        hanse.registry_call(owner, "register", STAKE, key_of("fresh key").address, owner.address)
    with reverts("provider"):
        hanse.registry_call(
            owner, "publish_service", owner.address, 1, 1, b"\x01" * 32, "chat", "uri", 1, 1, 1
        )
    with reverts("provider"):
        hanse.escrow_call(case.user, "fund", owner.address, case.signer.address, 1)
    assert not hanse.chain.view(hanse.registry, "is_active", owner.address)


def test_the_condemned_still_claims_what_was_signed_and_users_still_leave(case: Case) -> None:
    condemn(case)
    case.settle(claimed=100, sequence=2)
    case.hanse.escrow_call(
        case.user, "request_refund", case.provider.address, case.signer.address, 300
    )
    case.hanse.chain.advance(case.hanse.terms.lock_time_s)
    case.hanse.escrow_call(
        case.reporter,
        "claim_refund",
        case.user.address,
        case.provider.address,
        case.signer.address,
    )
    assert case.hanse.account(case.user) == 900


def test_every_victim_in_the_window_is_paid_in_the_order_of_the_proofs(case: Case) -> None:
    """The last gets what is left, and its proof stands for the record."""
    large = other_user(case, "large", HALF)
    large.settle(claimed=HALF, sequence=1)
    case.settle(claimed=300, sequence=4)
    late = other_user(case, "late", 100)
    late.settle(claimed=100, sequence=1)
    assert case.overclaim(case.receipt(4, 120)).output == (180,)
    outcome = large.overclaim(large.receipt(1, 0))
    assert outcome.output == (HALF - 180,)
    assert outcome.event("OverclaimProven")["loss"] == HALF
    assert case.info()["pool"] == 0
    with reverts("stake"):
        late.overclaim(late.receipt(1, 0))
    with reverts("stake"):
        large.overclaim(large.receipt(1, 0))
    assert_conserved(case, others=large.compensated())
    case.hanse.chain.advance(case.hanse.terms.dispute_window_s)
    with reverts("stake"):
        case.hanse.registry_call(case.reporter, "burn_rest", case.provider.address)


def test_after_the_window_the_rest_is_burned_and_no_proof_pays(case: Case) -> None:
    first = condemn(case)
    case.settle(claimed=300, sequence=4)
    with reverts("locked"):
        case.hanse.registry_call(case.reporter, "burn_rest", case.provider.address)
    case.hanse.chain.advance(case.hanse.terms.dispute_window_s - 1)
    with reverts("locked"):
        case.hanse.registry_call(case.reporter, "burn_rest", case.provider.address)
    assert case.overclaim(case.receipt(4, 120)).output == (180,)
    case.hanse.chain.advance(1)
    case.settle(claimed=390, sequence=4)
    with reverts("window"):
        case.overclaim(case.receipt(4, 120))
    outcome = case.hanse.registry_call(case.reporter, "burn_rest", case.provider.address)
    assert outcome.event("RestBurned") == {
        "provider": case.provider.address,
        "amount": HALF - 181,
    }
    with reverts("stake"):
        case.hanse.registry_call(case.reporter, "burn_rest", case.provider.address)
    with reverts("window"):
        case.overclaim(case.receipt(4, 120))
    assert case.burned() == STAKE - 181
    assert_conserved(case, others=first.compensated())


def test_burn_rest_of_the_honest_is_refused(case: Case) -> None:
    for owner in (case.provider.address, key_of("nobody").address):
        with reverts("not condemned"):
            case.hanse.registry_call(case.reporter, "burn_rest", owner)


@pytest.mark.parametrize("caller", ["provider", "receipt_key", "user", "reporter"])
def test_only_escrow_slashes(case: Case, caller: str) -> None:
    with reverts("not permitted"):
        case.hanse.registry_call(getattr(case, caller), "slash", case.provider.address, 1)


@pytest.mark.parametrize("stake", [STAKE, STAKE + 1])
def test_half_of_the_stake_rounded_up_is_always_lost(stake: int) -> None:
    """Also to a cheat that overclaims from its own sub-account and is first with the proof."""
    from tests.contracts.local_evm import deploy_hanse

    hanse, cheat, cheats_key = deploy_hanse(), key_of("cheat"), key_of("cheat's receipt key")
    hanse.register(cheat, cheats_key)
    if stake > STAKE:
        hanse.mint(cheat.address, stake - STAKE, hanse.registry)
        hanse.registry_call(cheat, "add_stake", stake - STAKE)
    hanse.mint(cheat.address, stake)
    hanse.escrow_call(cheat, "open", stake, [(cheat.address, cheat.address, stake)])
    case = Case(hanse, cheat, cheat, cheat, cheats_key, cheat)
    case.settle(claimed=stake, sequence=1)
    case.overclaim(case.receipt(1, 0))
    hanse.escrow_call(cheat, "withdraw", hanse.account(cheat))
    assert hanse.held(cheat.address) == stake + stake // 2
    assert case.burned() == stake - stake // 2
    assert case.burned() * 2 >= stake


def test_a_stranger_cannot_take_a_key_to_be_condemned_for(case: Case) -> None:
    """Digest and holder name one provider: who signs as itself harms nobody else."""
    attacker, attackers_key = key_of("attacker"), key_of("attacker's receipt key")
    case.hanse.register(attacker, attackers_key)
    framed = make_receipt(case.user, case.provider, case.signer, 4, 0)
    case.settle(claimed=300, sequence=4)
    with reverts("signature"):
        case.overclaim(sign_receipt(framed, attackers_key, case.hanse.domain))
    assert case.info()["stake"] == STAKE
