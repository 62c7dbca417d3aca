"""Disputes over hostile assets: one that refuses, lies, or calls back during a slashing."""

from collections.abc import Callable

import pytest

from tests.contracts.dispute_parts import Case
from tests.contracts.local_evm import Hanse, Key, key_of, reverts

OnAsset = Callable[[str], Hanse]


@pytest.fixture
def overclaimed(
    on_asset: OnAsset, depositor: Key, provider: Key, session: Key, receipt_key: Key
) -> Callable[[str], Case]:
    """A market over the asset in which 300 were claimed."""

    def build(asset: str) -> Case:
        hanse = on_asset(asset)
        hanse.register(provider, receipt_key)
        hanse.mint(depositor.address, 1_000)
        fund = (provider.address, session.address, 400)
        hanse.escrow_call(depositor, "open", 1_000, [fund])
        case = Case(hanse, depositor, provider, session, receipt_key, key_of("reporter"))
        case.settle(claimed=300, sequence=4)
        return case

    return build


@pytest.mark.parametrize(
    ("mode", "reason"), [(1, "paused"), (2, "asset"), (3, "asset"), (4, "received")]
)
def test_a_compensation_that_does_not_arrive_changes_nothing(
    overclaimed: Callable[[str], Case], mode: int, reason: str
) -> None:
    case = overclaimed("SwitchAsset")
    hanse, stake = case.hanse, case.hanse.terms.minimum_stake
    before = case.info()
    hanse.chain.call(case.user.address, hanse.asset, "set_mode", mode)
    with reverts(reason):
        case.overclaim(case.receipt(4, 120))
    assert case.info() == before
    assert (case.compensated(), hanse.account(case.user)) == (0, 600)
    hanse.chain.call(case.user.address, hanse.asset, "set_mode", 0)
    assert case.overclaim(case.receipt(4, 120)).output == (180,)
    assert hanse.held(hanse.registry) == stake - 180


@pytest.mark.parametrize("mode", [1, 2, 3, 4])
def test_no_asset_shields_a_cheat_from_being_condemned_and_burned(
    overclaimed: Callable[[str], Case], mode: int
) -> None:
    """What is burned is only counted: an asset that refuses every receiver cannot stop it."""
    case = overclaimed("SwitchAsset")
    hanse, stake = case.hanse, case.hanse.terms.minimum_stake
    hanse.chain.call(case.user.address, hanse.asset, "set_mode", mode)
    # Loss 0, so nothing has to move.
    case.equivocation(case.receipt(4, 500), case.receipt(4, 600))
    assert case.burned() == stake // 2
    hanse.chain.advance(hanse.terms.dispute_window_s)
    hanse.registry_call(case.reporter, "burn_rest", case.provider.address)
    assert case.burned() == stake == hanse.held(hanse.registry)


@pytest.mark.parametrize("inside", ["prove again", "claim refund", "unbond", "burn", "read"])
def test_nothing_can_be_done_in_the_middle_of_a_slashing(
    overclaimed: Callable[[str], Case], inside: str
) -> None:
    """From inside the transfer a call that anyone may make fails; from outside it works."""
    case = overclaimed("ReentrantAsset")
    hanse, attacker = case.hanse, key_of("attacker").address
    escrow, registry = (hanse.chain.artifacts[at] for at in (hanse.escrow, hanse.registry))
    other, other_key = key_of("other provider"), key_of("other receipt key")
    hanse.register(other, other_key)
    hanse.registry_call(other, "begin_unbonding")
    where = (case.provider.address, case.signer.address)
    hanse.escrow_call(case.user, "request_refund", *where, 10)
    hanse.chain.advance(hanse.terms.unbonding_time_s)
    burned = condemn_other(case) if inside == "burn" else other
    to, payload = {
        "prove again": (hanse.escrow, escrow.encode_call("prove_overclaim", *case.receipt(4, 100))),
        "claim refund": (
            hanse.escrow,
            escrow.encode_call("claim_refund", case.user.address, *where),
        ),
        "unbond": (hanse.registry, registry.encode_call("finish_unbonding", other.address)),
        "burn": (hanse.registry, registry.encode_call("burn_rest", burned.address)),
        "read": (hanse.registry, registry.encode_call("get_provider", case.provider.address)),
    }[inside]
    hanse.chain.call(attacker, hanse.asset, "arm", to, payload)
    assert case.overclaim(case.receipt(4, 120)).output == (180,)
    assert hanse.chain.view(hanse.asset, "tried") == 1
    assert hanse.chain.view(hanse.asset, "succeeded") == 0
    assert hanse.chain.call(attacker, hanse.asset, "strike").output == (True,)


def condemn_other(case: Case) -> Key:
    """A provider whose window is over, with something left to burn."""
    cheat, cheats_key = key_of("cheat"), key_of("cheat's receipt key")
    case.hanse.register(cheat, cheats_key)
    fund = (cheat.address, case.signer.address, 1)
    case.hanse.escrow_call(case.user, "open", 0, [fund])
    theirs = Case(case.hanse, case.user, cheat, case.signer, cheats_key, case.reporter)
    theirs.equivocation(theirs.receipt(1, 0), theirs.receipt(1, 1))
    case.hanse.chain.advance(case.hanse.terms.dispute_window_s)
    return cheat
