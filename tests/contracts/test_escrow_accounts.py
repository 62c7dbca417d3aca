"""Wallet <-> account <-> sub-account: every rule, from both sides."""

import pytest

from tests.contracts.local_evm import Hanse, Key, reverts

AMOUNT_MAX = 2**96 - 1


def test_deposit_credits_the_account_and_says_so(bare: Hanse, depositor: Key) -> None:
    bare.mint(depositor.address, 500)
    outcome = bare.escrow_call(depositor, "deposit", 300)
    assert outcome.event("Deposited") == {"user": depositor.address, "amount": 300}
    assert bare.account(depositor) == 300
    assert bare.held(bare.escrow) == 300
    assert bare.held(depositor.address) == 200


@pytest.mark.parametrize("amount", [0, AMOUNT_MAX + 1, 2**256 - 1])
def test_deposit_refuses_amounts_outside_96_bits(bare: Hanse, depositor: Key, amount: int) -> None:
    bare.mint(depositor.address, AMOUNT_MAX + 1)
    with reverts("amount"):
        bare.escrow_call(depositor, "deposit", amount)


def test_deposit_needs_money_and_approval(bare: Hanse, depositor: Key) -> None:
    with reverts("allowance"):
        bare.escrow_call(depositor, "deposit", 1)
    bare.mint(depositor.address, 10)
    with reverts("funds"):
        bare.escrow_call(depositor, "deposit", 11)


def test_withdraw_pays_the_wallet(hanse: Hanse, depositor: Key) -> None:
    outcome = hanse.escrow_call(depositor, "withdraw", 600)
    assert outcome.event("Withdrawn") == {"user": depositor.address, "amount": 600}
    assert hanse.account(depositor) == 0
    assert hanse.held(depositor.address) == 9_600


@pytest.mark.parametrize(("amount", "reason"), [(0, "amount"), (601, "balance")])
def test_withdraw_refusals(hanse: Hanse, depositor: Key, amount: int, reason: str) -> None:
    with reverts(reason):
        hanse.escrow_call(depositor, "withdraw", amount)


def test_attacker_withdraws_nothing_of_others(hanse: Hanse, attacker: Key) -> None:
    with reverts("balance"):
        hanse.escrow_call(attacker, "withdraw", 1)


def test_fund_moves_account_to_sub_account(
    hanse: Hanse, depositor: Key, provider: Key, session: Key
) -> None:
    outcome = hanse.escrow_call(depositor, "fund", provider.address, session.address, 100)
    assert outcome.event("Funded") == {
        "user": depositor.address,
        "provider": provider.address,
        "signer": session.address,
        "amount": 100,
        "from_refund": 0,
        "refund": 0,
    }
    assert hanse.sub_account(depositor, provider, session) == (500, 0, 0, 0, 0)
    assert hanse.account(depositor) == 500


def test_fund_refusals(
    hanse: Hanse, depositor: Key, provider: Key, session: Key, attacker: Key
) -> None:
    zero = "0x" + "0" * 40
    for who, signer, amount, reason in (
        (provider.address, session.address, 0, "amount"),
        (provider.address, session.address, AMOUNT_MAX + 1, "amount"),
        (provider.address, zero, 1, "signer"),
        (attacker.address, session.address, 1, "provider"),
        (provider.address, session.address, 601, "balance"),
    ):
        with reverts(reason):
            hanse.escrow_call(depositor, "fund", who, signer, amount)


def test_fund_refuses_a_provider_that_is_unbonding(
    hanse: Hanse, depositor: Key, provider: Key, session: Key
) -> None:
    hanse.registry_call(provider, "begin_unbonding")
    with reverts("provider"):
        hanse.escrow_call(depositor, "fund", provider.address, session.address, 1)
    hanse.registry_call(provider, "cancel_unbonding")
    hanse.escrow_call(depositor, "fund", provider.address, session.address, 1)


def test_uint96_overflow_over_a_life_is_refused(
    bare: Hanse, depositor: Key, session: Key, provider: Key, receipt_key: Key
) -> None:
    """balance + claimed fits 96 bits for ever, else settling would run into the sequence."""
    bare.register(provider, receipt_key)
    bare.mint(depositor.address, 2 * AMOUNT_MAX)
    bare.escrow_call(depositor, "deposit", AMOUNT_MAX)
    bare.escrow_call(depositor, "deposit", AMOUNT_MAX)
    bare.escrow_call(depositor, "fund", provider.address, session.address, AMOUNT_MAX)
    with reverts("amount"):
        bare.escrow_call(depositor, "fund", provider.address, session.address, 1)
    claim = bare.claim(depositor, provider, session, AMOUNT_MAX, sequence=2**64 - 1)
    assert bare.settle(receipt_key, provider, claim).output == (AMOUNT_MAX,)
    sub_account = bare.sub_account(depositor, provider, session)
    assert sub_account == (0, AMOUNT_MAX, 2**64 - 1, 0, 0)
    with reverts("amount"):
        bare.escrow_call(depositor, "fund", provider.address, session.address, 1)


def test_open_deposits_and_funds_several_in_one_transaction(
    hanse: Hanse, depositor: Key, provider: Key, session: Key, attacker: Key
) -> None:
    funds = [(provider.address, session.address, 50), (provider.address, attacker.address, 70)]
    outcome = hanse.escrow_call(depositor, "open", 100, funds)
    names = [event.name for event in outcome.events]
    assert names == ["Deposited", "Funded", "Funded", "Transfer"]
    assert hanse.account(depositor) == 580
    assert hanse.sub_account(depositor, provider, session)[0] == 450
    assert hanse.sub_account(depositor, provider, attacker)[0] == 70


def test_open_may_only_move_what_is_there_already(
    hanse: Hanse, depositor: Key, provider: Key, session: Key
) -> None:
    outcome = hanse.escrow_call(depositor, "open", 0, [(provider.address, session.address, 600)])
    assert [event.name for event in outcome.events] == ["Funded"]
    assert hanse.account(depositor) == 0


def test_open_is_all_or_nothing(hanse: Hanse, depositor: Key, provider: Key, session: Key) -> None:
    funds = [(provider.address, session.address, 650), (provider.address, session.address, 51)]
    with reverts("balance"):
        hanse.escrow_call(depositor, "open", 100, funds)
    assert hanse.account(depositor) == 600
    assert hanse.held(depositor.address) == 9_000


def test_open_refusals(hanse: Hanse, depositor: Key, provider: Key, session: Key) -> None:
    with reverts("amount"):
        hanse.escrow_call(depositor, "open", 0, [])
    with reverts("amount"):
        hanse.escrow_call(depositor, "open", AMOUNT_MAX + 1, [])
    funds = [(provider.address, session.address, 1)]
    hanse.escrow_call(depositor, "open", 0, funds * 20)
    with reverts(""):
        hanse.escrow_call(depositor, "open", 0, funds * 21)


def test_permit_in_the_same_transaction(
    bare: Hanse, depositor: Key, provider: Key, receipt_key: Key, session: Key
) -> None:
    bare.register(provider, receipt_key)
    bare.chain.call(depositor.address, bare.asset, "mint", depositor.address, 900)
    deadline = bare.chain.now_s + 60
    permit = bare.sign_permit(depositor, bare.escrow, 400, deadline)
    bare.escrow_call(depositor, "deposit_with_permit", 400, deadline, *permit)
    permit = bare.sign_permit(depositor, bare.escrow, 500, deadline)
    funds = [(provider.address, session.address, 700)]
    bare.escrow_call(depositor, "open_with_permit", 500, funds, deadline, *permit)
    assert bare.account(depositor) == 200
    assert bare.sub_account(depositor, provider, session)[0] == 700
    assert bare.chain.view(bare.asset, "allowance", depositor.address, bare.escrow) == 0


def test_front_run_permit_does_not_break_the_deposit(
    bare: Hanse, depositor: Key, attacker: Key
) -> None:
    bare.chain.call(depositor.address, bare.asset, "mint", depositor.address, 400)
    deadline = bare.chain.now_s + 60
    v, r, s = bare.sign_permit(depositor, bare.escrow, 400, deadline)
    arguments = (depositor.address, bare.escrow, 400, deadline, v, r, s)
    bare.chain.call(attacker.address, bare.asset, "permit", *arguments)
    with reverts("signature"):
        bare.chain.call(attacker.address, bare.asset, "permit", *arguments)
    bare.escrow_call(depositor, "deposit_with_permit", 400, deadline, v, r, s)
    assert bare.account(depositor) == 400


def test_stolen_permit_deposits_nothing_for_a_stranger(
    bare: Hanse, depositor: Key, attacker: Key
) -> None:
    bare.chain.call(depositor.address, bare.asset, "mint", depositor.address, 400)
    deadline = bare.chain.now_s + 60
    permit = bare.sign_permit(depositor, bare.escrow, 400, deadline)
    with reverts("allowance"):
        bare.escrow_call(attacker, "deposit_with_permit", 400, deadline, *permit)
    assert bare.held(depositor.address) == 400


def test_expired_permit_is_refused(bare: Hanse, depositor: Key) -> None:
    bare.chain.call(depositor.address, bare.asset, "mint", depositor.address, 400)
    deadline = bare.chain.now_s + 60
    permit = bare.sign_permit(depositor, bare.escrow, 400, deadline)
    bare.chain.advance(61)
    with reverts("allowance"):
        bare.escrow_call(depositor, "deposit_with_permit", 400, deadline, *permit)
