"""Stakes, keys, payees and services: every rule of Registry, from both sides."""

import pytest

from tests.contracts.local_evm import Hanse, Key, key_of, reverts

ZERO = "0x" + "0" * 40
AMOUNT_MAX = 2**96 - 1


def get_provider(hanse: Hanse, provider: Key) -> dict[str, object]:
    names = (
        "stake",
        "unbonding_until_s",
        "receipt_key",
        "payee",
        "next_receipt_key",
        "next_receipt_key_from_s",
        "next_payee",
        "next_payee_from_s",
        "pool",
        "condemned_until_s",
    )
    values = hanse.chain.view(hanse.registry, "get_provider", provider.address)
    return dict(zip(names, values, strict=True))


def is_active(hanse: Hanse, provider: Key) -> bool:
    active: bool = hanse.chain.view(hanse.registry, "is_active", provider.address)
    return active


def payee_for(hanse: Hanse, provider: Key, caller: Key) -> str:
    found: str = hanse.chain.view(hanse.registry, "payee_for", provider.address, caller.address)
    return found


def test_register(bare: Hanse, provider: Key, receipt_key: Key, payee: Key, attacker: Key) -> None:
    assert not is_active(bare, provider)
    stake = bare.terms.minimum_stake
    bare.mint(provider.address, stake + 5, bare.registry)
    arguments = (stake + 5, receipt_key.address, payee.address)
    outcome = bare.registry_call(provider, "register", *arguments)
    assert outcome.event("Registered") == {
        "provider": provider.address,
        "receipt_key": receipt_key.address,
        "payee": payee.address,
        "stake": stake + 5,
    }
    assert is_active(bare, provider)
    assert bare.held(bare.registry) == stake + 5
    assert payee_for(bare, provider, provider) == payee.address
    assert payee_for(bare, provider, receipt_key) == payee.address
    assert payee_for(bare, provider, attacker) == ZERO
    assert payee_for(bare, provider, payee) == ZERO
    holder = bare.chain.view(bare.registry, "provider_of_receipt_key", receipt_key.address)
    assert holder == provider.address


def test_register_refusals(bare: Hanse, provider: Key, receipt_key: Key, payee: Key) -> None:
    stake = bare.terms.minimum_stake
    bare.mint(provider.address, 2**97, bare.registry)
    for amount, key, to, reason in (
        (stake - 1, receipt_key.address, payee.address, "stake"),
        (AMOUNT_MAX + 1, receipt_key.address, payee.address, "amount"),
        (stake, ZERO, payee.address, "key"),
        (stake, receipt_key.address, ZERO, "payee"),
    ):
        with reverts(reason):
            bare.registry_call(provider, "register", amount, key, to)
    bare.registry_call(provider, "register", stake, receipt_key.address, payee.address)
    with reverts("registered"):
        bare.registry_call(provider, "register", stake, receipt_key.address, payee.address)


def test_attacker_cannot_take_anothers_receipt_key(
    hanse: Hanse, provider: Key, receipt_key: Key, attacker: Key
) -> None:
    hanse.mint(attacker.address, 10**9, hanse.registry)
    stake = hanse.terms.minimum_stake
    with reverts("key"):
        hanse.registry_call(attacker, "register", stake, receipt_key.address, attacker.address)
    own = key_of("attacker's receipt key").address
    hanse.registry_call(attacker, "register", stake, own, attacker.address)
    with reverts("key"):
        hanse.registry_call(attacker, "announce_receipt_key", receipt_key.address)
    new = key_of("provider's next receipt key").address
    hanse.registry_call(provider, "announce_receipt_key", new)
    hanse.chain.advance(hanse.terms.key_delay_s)
    hanse.registry_call(attacker, "complete_receipt_key", provider.address)
    with reverts("key"):
        hanse.registry_call(attacker, "announce_receipt_key", receipt_key.address)


def test_key_that_was_taken_while_announced(hanse: Hanse, provider: Key, attacker: Key) -> None:
    """An announced key is not reserved; taking it costs a stake."""
    wanted = key_of("wanted receipt key").address
    hanse.registry_call(provider, "announce_receipt_key", wanted)
    hanse.mint(attacker.address, 10**9, hanse.registry)
    arguments = (hanse.terms.minimum_stake, wanted, attacker.address)
    hanse.registry_call(attacker, "register", *arguments)
    hanse.chain.advance(hanse.terms.key_delay_s)
    with reverts("key"):
        hanse.registry_call(provider, "complete_receipt_key", provider.address)
    hanse.registry_call(provider, "announce_receipt_key", key_of("another").address)


def test_stake_is_added_and_leaves_after_unbonding(
    hanse: Hanse, provider: Key, attacker: Key
) -> None:
    stake = hanse.terms.minimum_stake
    hanse.mint(provider.address, 50, hanse.registry)
    outcome = hanse.registry_call(provider, "add_stake", 50)
    assert outcome.event("StakeAdded") == {
        "provider": provider.address,
        "amount": 50,
        "stake": stake + 50,
    }
    outcome = hanse.registry_call(provider, "begin_unbonding")
    until_s = hanse.chain.now_s + hanse.terms.unbonding_time_s
    assert outcome.event("UnbondingBegun")["until_s"] == until_s
    assert not is_active(hanse, provider)
    hanse.chain.advance(hanse.terms.unbonding_time_s - 1)
    with reverts("locked"):
        hanse.registry_call(provider, "finish_unbonding", provider.address)
    hanse.chain.advance(1)
    outcome = hanse.registry_call(attacker, "finish_unbonding", provider.address)
    assert outcome.event("UnbondingFinished")["stake"] == stake + 50
    assert hanse.held(provider.address) == stake + 50
    assert hanse.held(hanse.registry) == 0
    with reverts("not unbonding"):
        hanse.registry_call(provider, "finish_unbonding", provider.address)


def test_stake_refusals(hanse: Hanse, provider: Key, attacker: Key) -> None:
    for function, arguments in (
        ("add_stake", (1,)),
        ("begin_unbonding", ()),
        ("announce_payee", (attacker.address,)),
        ("announce_receipt_key", (attacker.address,)),
    ):
        with reverts("not registered"):
            hanse.registry_call(attacker, function, *arguments)
    for amount in (0, AMOUNT_MAX, AMOUNT_MAX + 1):
        with reverts("amount"):
            hanse.registry_call(provider, "add_stake", amount)
    with reverts("not unbonding"):
        hanse.registry_call(provider, "cancel_unbonding")
    hanse.registry_call(provider, "begin_unbonding")
    with reverts("unbonding"):
        hanse.registry_call(provider, "begin_unbonding")
    with reverts("unbonding"):
        hanse.registry_call(provider, "add_stake", 1)


def test_unbonding_can_be_cancelled(hanse: Hanse, provider: Key) -> None:
    hanse.registry_call(provider, "begin_unbonding")
    outcome = hanse.registry_call(provider, "cancel_unbonding")
    assert outcome.event("UnbondingCancelled")["stake"] == hanse.terms.minimum_stake
    assert is_active(hanse, provider)
    hanse.chain.advance(hanse.terms.unbonding_time_s)
    with reverts("not unbonding"):
        hanse.registry_call(provider, "finish_unbonding", provider.address)


def test_retired_provider_comes_back_with_a_whole_stake(hanse: Hanse, provider: Key) -> None:
    stake = hanse.terms.minimum_stake
    hanse.registry_call(provider, "begin_unbonding")
    hanse.chain.advance(hanse.terms.unbonding_time_s)
    hanse.registry_call(provider, "finish_unbonding", provider.address)
    with reverts("stake"):
        hanse.registry_call(provider, "begin_unbonding")
    with reverts("stake"):
        hanse.registry_call(provider, "add_stake", stake - 1)
    hanse.registry_call(provider, "add_stake", stake)
    assert is_active(hanse, provider)


@pytest.mark.parametrize("what", ["receipt_key", "payee"])
def test_keys_and_payees_change_with_a_delay(
    hanse: Hanse, provider: Key, receipt_key: Key, payee: Key, attacker: Key, what: str
) -> None:
    new = key_of("new").address
    event = {"receipt_key": "ReceiptKey", "payee": "Payee"}[what]
    with reverts("not announced"):
        hanse.registry_call(attacker, f"complete_{what}", provider.address)
    outcome = hanse.registry_call(provider, f"announce_{what}", new)
    from_s = hanse.chain.now_s + hanse.terms.key_delay_s
    announced = outcome.event(f"{event}Announced")
    assert announced == {"provider": provider.address, what: new, "from_s": from_s}
    old = {"receipt_key": receipt_key, "payee": payee}[what].address
    assert get_provider(hanse, provider)[what] == old
    hanse.chain.advance(hanse.terms.key_delay_s - 1)
    with reverts("locked"):
        hanse.registry_call(provider, f"complete_{what}", provider.address)
    hanse.chain.advance(1)
    outcome = hanse.registry_call(attacker, f"complete_{what}", provider.address)
    assert outcome.event(f"{event}Changed") == {"provider": provider.address, what: new}
    assert get_provider(hanse, provider)[what] == new
    with reverts("not announced"):
        hanse.registry_call(provider, f"complete_{what}", provider.address)


def test_old_receipt_key_may_not_settle_after_the_change(
    hanse: Hanse, depositor: Key, provider: Key, session: Key, receipt_key: Key
) -> None:
    new = key_of("new receipt key")
    hanse.registry_call(provider, "announce_receipt_key", new.address)
    hanse.chain.advance(hanse.terms.key_delay_s)
    claim = hanse.claim(depositor, provider, session, 10)
    assert hanse.settle(receipt_key, provider, claim).output == (10,)
    hanse.registry_call(provider, "complete_receipt_key", provider.address)
    claim = hanse.claim(depositor, provider, session, 20)
    with reverts("not permitted"):
        hanse.settle(receipt_key, provider, claim)
    assert hanse.settle(new, provider, claim).output == (10,)


def test_announcing_the_present_one_takes_a_change_back(
    hanse: Hanse, provider: Key, payee: Key, attacker: Key
) -> None:
    hanse.registry_call(provider, "announce_payee", attacker.address)
    hanse.registry_call(provider, "announce_payee", payee.address)
    hanse.chain.advance(hanse.terms.key_delay_s)
    hanse.registry_call(provider, "complete_payee", provider.address)
    assert get_provider(hanse, provider)["payee"] == payee.address
    with reverts("payee"):
        hanse.registry_call(provider, "announce_payee", ZERO)
    with reverts("key"):
        hanse.registry_call(provider, "announce_receipt_key", ZERO)


def publish(hanse: Hanse, caller: Key, provider: Key, revision: int, **changes: object) -> object:
    given = {"offer_hash": b"\x0e" * 32, "service_type": "chat", "uri": "u" * 256, **changes}
    return hanse.registry_call(
        caller, "publish_service", provider.address, 7, revision, *given.values(), 30, 20, 10
    ).event("ServicePublished")


def test_services_are_published_replaced_and_retired(
    hanse: Hanse, provider: Key, receipt_key: Key
) -> None:
    assert publish(hanse, receipt_key, provider, 1) == {
        "provider": provider.address,
        "service_id": 7,
        "revision": 1,
        "offer_hash": b"\x0e" * 32,
        "service_type": "chat",
        "uri": "u" * 256,
        "input_price_per_mtok": 30,
        "cached_price_per_mtok": 20,
        "output_price_per_mtok": 10,
    }
    publish(hanse, provider, provider, 5, offer_hash=b"\x0f" * 32)
    view = hanse.chain.view
    assert view(hanse.registry, "get_service", provider.address, 7) == (b"\x0f" * 32, 5, True)
    outcome = hanse.registry_call(receipt_key, "retire_service", provider.address, 7)
    retired = outcome.event("ServiceRetired")
    assert retired == {"provider": provider.address, "service_id": 7}
    assert view(hanse.registry, "get_service", provider.address, 7)[2] is False
    publish(hanse, receipt_key, provider, 6)


def test_service_refusals(
    hanse: Hanse, provider: Key, receipt_key: Key, attacker: Key, payee: Key
) -> None:
    for stranger in (attacker, payee):
        with reverts("not permitted"):
            publish(hanse, stranger, provider, 1)
    with reverts("revision"):
        publish(hanse, receipt_key, provider, 0)
    with reverts("offer"):
        publish(hanse, receipt_key, provider, 1, offer_hash=bytes(32))
    with reverts("offer"):
        publish(hanse, receipt_key, provider, 1, service_type="")
    with reverts(""):
        publish(hanse, receipt_key, provider, 1, uri="u" * 257)
    with reverts("service"):
        hanse.registry_call(receipt_key, "retire_service", provider.address, 7)
    publish(hanse, receipt_key, provider, 1)
    with reverts("revision"):
        publish(hanse, receipt_key, provider, 1)
    with reverts("not permitted"):
        hanse.registry_call(attacker, "retire_service", provider.address, 7)
    hanse.registry_call(provider, "begin_unbonding")
    with reverts("provider"):
        publish(hanse, receipt_key, provider, 2)
    hanse.registry_call(receipt_key, "retire_service", provider.address, 7)
    with reverts("service"):
        hanse.registry_call(receipt_key, "retire_service", provider.address, 7)
