"""Refunds: the lock time holds for every unit, whatever interleaves, and anyone completes them."""

import pyrevm
import pytest

from tests.contracts.local_evm import Hanse, Key, reverts


def request(hanse: Hanse, user: Key, provider: Key, signer: Key, amount: int) -> dict[str, int]:
    outcome = hanse.escrow_call(user, "request_refund", provider.address, signer.address, amount)
    return outcome.event("RefundRequested")


def complete(hanse: Hanse, caller: Key, user: Key, provider: Key, signer: Key) -> int:
    arguments = (user.address, provider.address, signer.address)
    outcome = hanse.escrow_call(caller, "claim_refund", *arguments)
    amount: int = outcome.event("RefundClaimed")["amount"]
    assert outcome.output == (amount,)
    return amount


def test_refund_waits_the_lock_time_and_anyone_completes_it(
    hanse: Hanse, depositor: Key, provider: Key, session: Key, attacker: Key
) -> None:
    event = request(hanse, depositor, provider, session, 150)
    unlock = hanse.chain.now_s + hanse.terms.lock_time_s
    assert (event["amount"], event["refund"], event["unlock_time_s"]) == (150, 150, unlock)
    assert hanse.sub_account(depositor, provider, session) == (400, 0, 0, 150, unlock)
    hanse.chain.advance(hanse.terms.lock_time_s - 1)
    with reverts("locked"):
        complete(hanse, attacker, depositor, provider, session)
    hanse.chain.advance(1)
    assert complete(hanse, attacker, depositor, provider, session) == 150
    assert hanse.account(depositor) == 750
    assert hanse.sub_account(depositor, provider, session) == (250, 0, 0, 0, 0)


def test_refund_is_completed_once(
    hanse: Hanse, depositor: Key, provider: Key, session: Key
) -> None:
    request(hanse, depositor, provider, session, 150)
    hanse.chain.advance(hanse.terms.lock_time_s)
    complete(hanse, depositor, depositor, provider, session)
    with reverts("no refund"):
        complete(hanse, depositor, depositor, provider, session)


@pytest.mark.parametrize(
    ("amount", "reason"), [(0, "amount"), (401, "balance"), (2**255, "balance")]
)
def test_refund_request_refusals(
    hanse: Hanse, depositor: Key, provider: Key, session: Key, amount: int, reason: str
) -> None:
    with reverts(reason):
        request(hanse, depositor, provider, session, amount)


def test_attacker_cannot_ask_for_anothers_refund(
    hanse: Hanse, attacker: Key, provider: Key, session: Key
) -> None:
    with reverts("balance"):
        request(hanse, attacker, provider, session, 1)


def test_second_request_restarts_the_wait_for_all(
    hanse: Hanse, depositor: Key, provider: Key, session: Key
) -> None:
    request(hanse, depositor, provider, session, 100)
    hanse.chain.advance(hanse.terms.lock_time_s - 1)
    assert request(hanse, depositor, provider, session, 300)["refund"] == 400
    with reverts("balance"):
        request(hanse, depositor, provider, session, 1)
    hanse.chain.advance(hanse.terms.lock_time_s - 1)
    with reverts("locked"):
        complete(hanse, depositor, depositor, provider, session)
    hanse.chain.advance(1)
    assert complete(hanse, depositor, depositor, provider, session) == 400


def test_cancel_refund(hanse: Hanse, depositor: Key, provider: Key, session: Key) -> None:
    request(hanse, depositor, provider, session, 100)
    outcome = hanse.escrow_call(depositor, "cancel_refund", provider.address, session.address)
    assert outcome.event("RefundCancelled")["amount"] == 100
    with reverts("no refund"):
        hanse.escrow_call(depositor, "cancel_refund", provider.address, session.address)
    hanse.chain.advance(hanse.terms.lock_time_s)
    with reverts("no refund"):
        complete(hanse, depositor, depositor, provider, session)


@pytest.mark.parametrize(
    ("amount", "from_refund", "refund", "account"),
    [(40, 40, 60, 600), (100, 100, 0, 600), (130, 100, 0, 570)],
)
def test_fund_first_cancels_a_pending_refund(
    hanse: Hanse,
    depositor: Key,
    provider: Key,
    session: Key,
    amount: int,
    from_refund: int,
    refund: int,
    account: int,
) -> None:
    request(hanse, depositor, provider, session, 100)
    outcome = hanse.escrow_call(depositor, "fund", provider.address, session.address, amount)
    event = outcome.event("Funded")
    assert (event["from_refund"], event["refund"]) == (from_refund, refund)
    assert hanse.account(depositor) == account
    balance, _, _, pending, _ = hanse.sub_account(depositor, provider, session)
    assert (balance, pending) == (400 + amount - from_refund, refund)


def test_settlement_overtakes_a_pending_refund(
    hanse: Hanse, depositor: Key, provider: Key, session: Key, receipt_key: Key
) -> None:
    """The provider claims what was signed during the wait; the refund takes what is left."""
    request(hanse, depositor, provider, session, 400)
    hanse.settle(receipt_key, provider, hanse.claim(depositor, provider, session, 330))
    assert hanse.sub_account(depositor, provider, session)[3] == 70
    hanse.chain.advance(hanse.terms.lock_time_s)
    assert complete(hanse, depositor, depositor, provider, session) == 70
    assert hanse.sub_account(depositor, provider, session) == (0, 330, 1, 0, 0)


def test_settlement_after_the_lock_time_but_before_completion(
    hanse: Hanse, depositor: Key, provider: Key, session: Key, receipt_key: Key
) -> None:
    request(hanse, depositor, provider, session, 400)
    hanse.chain.advance(hanse.terms.lock_time_s + 1)
    hanse.settle(receipt_key, provider, hanse.claim(depositor, provider, session, 400))
    assert complete(hanse, depositor, depositor, provider, session) == 0


def test_new_funds_never_fall_under_an_old_refund(
    hanse: Hanse, depositor: Key, provider: Key, session: Key, receipt_key: Key
) -> None:
    """A refund of 400 was overtaken by a claim of 400; 300 added later must not leave with it."""
    request(hanse, depositor, provider, session, 400)
    hanse.settle(receipt_key, provider, hanse.claim(depositor, provider, session, 400))
    hanse.escrow_call(depositor, "fund", provider.address, session.address, 300)
    hanse.chain.advance(hanse.terms.lock_time_s)
    with reverts("no refund"):
        complete(hanse, depositor, depositor, provider, session)
    assert hanse.sub_account(depositor, provider, session) == (300, 400, 1, 0, 0)


def test_claimed_and_sequence_stay_after_refund_and_new_funds(
    hanse: Hanse, depositor: Key, provider: Key, session: Key, receipt_key: Key
) -> None:
    claim = hanse.claim(depositor, provider, session, 100, sequence=7)
    hanse.settle(receipt_key, provider, claim)
    request(hanse, depositor, provider, session, 300)
    hanse.chain.advance(hanse.terms.lock_time_s)
    complete(hanse, depositor, depositor, provider, session)
    assert hanse.sub_account(depositor, provider, session) == (0, 100, 7, 0, 0)
    hanse.escrow_call(depositor, "fund", provider.address, session.address, 50)
    assert hanse.sub_account(depositor, provider, session) == (50, 100, 7, 0, 0)
    replayed = hanse.settle(receipt_key, provider, claim)
    assert replayed.output == (0,)


def test_user_gets_everything_out_while_the_provider_is_gone(
    hanse: Hanse, depositor: Key, provider: Key, session: Key, receipt_key: Key, attacker: Key
) -> None:
    """Unbonded, without stake and silent: the user still gets all but what was claimed."""
    hanse.settle(receipt_key, provider, hanse.claim(depositor, provider, session, 25))
    hanse.registry_call(provider, "begin_unbonding")
    hanse.chain.advance(hanse.terms.unbonding_time_s)
    hanse.registry_call(attacker, "finish_unbonding", provider.address)
    hanse.chain.evm.insert_account_info(hanse.registry, pyrevm.AccountInfo(nonce=1))
    with reverts(""):
        hanse.escrow_call(depositor, "fund", provider.address, session.address, 1)
    request(hanse, depositor, provider, session, 375)
    hanse.chain.advance(hanse.terms.lock_time_s)
    complete(hanse, depositor, depositor, provider, session)
    hanse.escrow_call(depositor, "withdraw", 975)
    assert hanse.held(depositor.address) == 10_000 - 25
    assert hanse.held(hanse.escrow) == 0


def test_provider_claims_everything_while_the_user_is_gone(
    hanse: Hanse, depositor: Key, provider: Key, session: Key, receipt_key: Key, payee: Key
) -> None:
    """Also while it unbonds and after its stake has left: what was signed to it stays its own."""
    claim = hanse.claim(depositor, provider, session, 150, sequence=1)
    assert hanse.settle(receipt_key, provider, claim).output == (150,)
    hanse.registry_call(provider, "begin_unbonding")
    claim = hanse.claim(depositor, provider, session, 250, sequence=2)
    assert hanse.settle(receipt_key, provider, claim).output == (100,)
    hanse.chain.advance(hanse.terms.unbonding_time_s)
    hanse.registry_call(provider, "finish_unbonding", provider.address)
    claim = hanse.claim(depositor, provider, session, 400, sequence=3)
    assert hanse.settle(provider, provider, claim).output == (150,)
    assert hanse.held(payee.address) == 400
