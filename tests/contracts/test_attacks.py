"""Hostile assets: what takes a fee, refuses, lies, stays silent or calls back."""

from collections.abc import Callable

import pytest

from tests.contracts.local_evm import Hanse, Key, key_of, reverts

OnAsset = Callable[[str], Hanse]


def with_market(
    hanse: Hanse, depositor: Key, provider: Key, session: Key, receipt_key: Key
) -> Hanse:
    hanse.register(provider, receipt_key)
    hanse.mint(depositor.address, 1_000)
    hanse.escrow_call(depositor, "open", 1_000, [(provider.address, session.address, 400)])
    return hanse


def test_fee_on_transfer_asset_is_refused(
    on_asset: OnAsset, depositor: Key, provider: Key, receipt_key: Key
) -> None:
    hanse = on_asset("FeeAsset")
    hanse.mint(depositor.address, 1_000)
    with reverts("received"):
        hanse.escrow_call(depositor, "deposit", 1_000)
    with reverts("received"):
        hanse.escrow_call(depositor, "open", 1_000, [])
    with reverts("received"):
        hanse.register(provider, receipt_key)
    # Below a hundred units the fee rounds to nothing, and what arrives is what was sent.
    hanse.escrow_call(depositor, "deposit", 99)
    assert hanse.account(depositor) == hanse.held(hanse.escrow) == 99


def test_silent_asset_without_return_values_works(
    on_asset: OnAsset, depositor: Key, provider: Key, session: Key, receipt_key: Key
) -> None:
    hanse = with_market(on_asset("SilentAsset"), depositor, provider, session, receipt_key)
    hanse.settle(receipt_key, provider, hanse.claim(depositor, provider, session, 150))
    hanse.escrow_call(depositor, "withdraw", 600)
    assert (hanse.held(provider.address), hanse.held(depositor.address)) == (150, 600)


@pytest.mark.parametrize(("mode", "reason"), [(1, "paused"), (2, "asset"), (3, "asset")])
def test_reverting_and_false_returning_asset_changes_nothing(
    on_asset: OnAsset,
    depositor: Key,
    provider: Key,
    session: Key,
    receipt_key: Key,
    mode: int,
    reason: str,
) -> None:
    hanse = with_market(on_asset("SwitchAsset"), depositor, provider, session, receipt_key)
    hanse.mint(depositor.address, 500)
    claim = hanse.claim(depositor, provider, session, 150)
    hanse.registry_call(provider, "begin_unbonding")
    hanse.chain.advance(hanse.terms.unbonding_time_s)
    hanse.chain.call(depositor.address, hanse.asset, "set_mode", mode)
    for attempt in (
        lambda: hanse.escrow_call(depositor, "deposit", 500),
        lambda: hanse.escrow_call(depositor, "withdraw", 600),
        lambda: hanse.settle(receipt_key, provider, claim),
        lambda: hanse.registry_call(provider, "finish_unbonding", provider.address),
    ):
        with reverts(reason):
            attempt()
    assert hanse.account(depositor) == 600
    assert hanse.sub_account(depositor, provider, session) == (400, 0, 0, 0, 0)
    hanse.chain.call(depositor.address, hanse.asset, "set_mode", 0)
    assert hanse.settle(receipt_key, provider, claim).output == (150,)


def test_refunds_do_not_touch_a_broken_asset(
    on_asset: OnAsset, depositor: Key, provider: Key, session: Key, receipt_key: Key
) -> None:
    hanse = with_market(on_asset("SwitchAsset"), depositor, provider, session, receipt_key)
    hanse.chain.call(depositor.address, hanse.asset, "set_mode", 1)
    where = (provider.address, session.address)
    hanse.escrow_call(depositor, "request_refund", *where, 400)
    hanse.chain.advance(hanse.terms.lock_time_s)
    hanse.escrow_call(depositor, "claim_refund", depositor.address, *where)
    assert hanse.account(depositor) == 1_000


def test_reentrancy_is_locked_out_of_every_function_that_calls_the_asset(
    on_asset: OnAsset, depositor: Key, provider: Key, session: Key, receipt_key: Key
) -> None:
    """From inside a transfer a call that anyone may make fails; from outside it works."""
    hanse = with_market(on_asset("ReentrantAsset"), depositor, provider, session, receipt_key)
    hanse.mint(depositor.address, 500)
    where = (provider.address, session.address)
    hanse.escrow_call(depositor, "request_refund", *where, 100)
    hanse.chain.advance(hanse.terms.lock_time_s)
    escrow, attacker = hanse.chain.artifacts[hanse.escrow], key_of("attacker").address
    payload = escrow.encode_call("claim_refund", depositor.address, *where)
    hanse.chain.call(attacker, hanse.asset, "arm", hanse.escrow, payload)
    hanse.escrow_call(depositor, "deposit", 100)
    hanse.escrow_call(depositor, "open", 100, [(*where, 10)])
    hanse.escrow_call(depositor, "withdraw", 100)
    hanse.settle(receipt_key, provider, hanse.claim(depositor, provider, session, 50))
    assert hanse.chain.view(hanse.asset, "tried") == 4
    assert hanse.chain.view(hanse.asset, "succeeded") == 0
    assert hanse.chain.call(attacker, hanse.asset, "strike").output == (True,)


def test_reentrancy_from_a_stakes_payout(
    on_asset: OnAsset, provider: Key, receipt_key: Key
) -> None:
    """While one stake is paid out, the asset tries to complete another's unbonding."""
    hanse = on_asset("ReentrantAsset")
    other = key_of("other provider")
    for owner, hot in ((provider, receipt_key), (other, key_of("other receipt key"))):
        hanse.register(owner, hot)
        hanse.registry_call(owner, "begin_unbonding")
    hanse.chain.advance(hanse.terms.unbonding_time_s)
    registry, attacker = hanse.chain.artifacts[hanse.registry], key_of("attacker").address
    payload = registry.encode_call("finish_unbonding", other.address)
    hanse.chain.call(attacker, hanse.asset, "arm", hanse.registry, payload)
    hanse.registry_call(provider, "finish_unbonding", provider.address)
    assert hanse.chain.view(hanse.asset, "tried") == 1
    assert hanse.chain.view(hanse.asset, "succeeded") == 0
    assert hanse.held(provider.address) == hanse.terms.minimum_stake
    assert hanse.chain.call(attacker, hanse.asset, "strike").output == (True,)
    assert hanse.held(other.address) == hanse.terms.minimum_stake


@pytest.mark.parametrize("function", ["get_sub_account", "accounts"])
def test_read_only_reentrancy_is_locked_out_too(
    on_asset: OnAsset,
    depositor: Key,
    provider: Key,
    session: Key,
    receipt_key: Key,
    function: str,
) -> None:
    """No other contract can be shown our books from the middle of a transfer."""
    hanse = with_market(on_asset("ReentrantAsset"), depositor, provider, session, receipt_key)
    escrow = hanse.chain.artifacts[hanse.escrow]
    arguments = (depositor.address, provider.address, session.address)
    payload = escrow.encode_call(function, *arguments[: len(escrow.functions[function].inputs)])
    hanse.chain.call(depositor.address, hanse.asset, "arm", hanse.escrow, payload)
    hanse.settle(receipt_key, provider, hanse.claim(depositor, provider, session, 50))
    assert hanse.chain.view(hanse.asset, "tried") == 1
    assert hanse.chain.view(hanse.asset, "succeeded") == 0
    assert hanse.chain.call(depositor.address, hanse.asset, "strike").output == (True,)
