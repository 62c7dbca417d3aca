"""Disputes over hostile assets, and what a party of a challenge could try."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from hanse.protocol.ledger.panels.sealing import Verdict, seal_vote
from hanse.protocol.signatures import to_bytes
from tests.contracts.conftest import attack_asset
from tests.contracts.local_evm import LocalEvm, Reverted, deploy_hanse, key_of, reverts
from tests.contracts.panel_parts import (
    APPELLANT,
    AUDITORS,
    CHALLENGER,
    DEPOSIT,
    FEES,
    PANELS,
    PROVIDER,
    RECEIPT_KEY,
    RICH,
    SALT,
    TERMS,
    USER,
    Court,
    open_court,
)

UP, NO, AWAY = Verdict.UPHELD, Verdict.REJECTED, Verdict.NONE
STRANGER = key_of("stranger")


@pytest.fixture
def court_on() -> Callable[[str], Court]:
    """A court over an attack asset; nine auditors are in."""

    def build(name: str) -> Court:
        chain = LocalEvm()
        artifact = attack_asset(name)
        asset = chain.deploy(key_of("asset's author").address, artifact.bytecode, artifact)
        hanse = deploy_hanse(TERMS, asset=asset, chain=chain)
        hanse.register(PROVIDER, RECEIPT_KEY)
        for key in (*AUDITORS, CHALLENGER, APPELLANT, PROVIDER, USER):
            hanse.mint(key.address, RICH, hanse.disputes)
        court = Court(hanse)
        for auditor in AUDITORS:
            court.call(auditor, "join", 1)
        hanse.chain.advance(1)
        return court

    return build


@pytest.mark.parametrize(
    ("mode", "reason"), [(1, "paused"), (2, "asset"), (3, "asset"), (4, "received")]
)
def test_what_does_not_arrive_counts_for_nothing(
    court_on: Callable[[str], Court], mode: int, reason: str
) -> None:
    court = court_on("SwitchAsset")
    hanse = court.hanse
    name = court.challenge()
    court.decide(name, UP, UP, UP)
    decided = court.challenge(evidence="0x" + "e2" * 32)
    court.decide(decided, NO, NO, NO)
    hanse.chain.call(STRANGER.address, hanse.asset, "set_mode", mode)
    before = court.view("get_challenge", to_bytes(name)), court.view("lot_count")
    with reverts(reason):
        court.call(AUDITORS[0], "join", 1)
    with reverts(reason):
        court.appeal(decided)
    with reverts(reason):
        court.open_answer(name)
    assert (court.view("get_challenge", to_bytes(name)), court.view("lot_count")) == before
    assert court.provider()["stake"] == 1_000
    # What needs no asset goes on; and the verdict is executed when the asset moves again.
    hanse.chain.advance(PANELS.answer_time_s)
    court.call(STRANGER, "close", to_bytes(decided))
    hanse.chain.call(STRANGER.address, hanse.asset, "set_mode", 0)
    court.open_answer(name)
    assert court.provider()["stake"] == 0
    court.assert_conserved()


def test_an_asset_that_keeps_a_part_is_refused(court_on: Callable[[str], Court]) -> None:
    with reverts("received"):
        court_on("FeeAsset")


@pytest.mark.parametrize("inside", ["withdraw", "draw", "leave", "close", "read"])
def test_nothing_can_be_done_in_the_middle_of_a_withdrawal(
    court_on: Callable[[str], Court], inside: str
) -> None:
    court = court_on("ReentrantAsset")
    hanse, disputes = court.hanse, court.hanse.chain.artifacts[court.hanse.disputes]
    done, open_one = court.challenge(), court.challenge(evidence="0x" + "e2" * 32)
    court.decide(done, AWAY, AWAY, AWAY)
    hanse.chain.mine(3)
    hanse.chain.advance(PANELS.appeal_time_s)
    court.call(STRANGER, "close", to_bytes(done))
    calls: dict[str, tuple[Any, ...]] = {
        "withdraw": ("withdraw",),
        "draw": ("draw", to_bytes(open_one)),
        "leave": ("leave", 1),
        "close": ("close", to_bytes(done)),
        "read": ("credits", CHALLENGER.address),
    }
    payload = disputes.encode_call(*calls[inside])
    hanse.chain.call(STRANGER.address, hanse.asset, "arm", hanse.disputes, payload)
    court.call(CHALLENGER, "withdraw")
    assert hanse.chain.view(hanse.asset, "tried") == 1
    assert hanse.chain.view(hanse.asset, "succeeded") == 0
    assert court.credit(CHALLENGER) == 0
    if inside in ("draw", "read"):  # what anyone may do does work from outside
        assert hanse.chain.call(STRANGER.address, hanse.asset, "strike").output == (True,)


def test_a_cheat_cannot_hide_behind_a_friends_planted_challenge() -> None:
    """The friend's answer leaves the provider alone; another's challenge does not."""
    court = open_court()
    friend = key_of("friend")
    court.hanse.mint(friend.address, RICH, court.hanse.disputes)
    planted = court.challenge(answer=UP, challenger=friend)
    real = court.challenge()
    for name in (planted, real):
        court.decide(name, UP, UP, UP)
    court.hanse.chain.advance(PANELS.appeal_time_s)
    court.call(friend, "open_answer", to_bytes(planted), UP, to_bytes(SALT))
    assert court.provider()["stake"] == 1_000
    court.open_answer(real)
    assert court.provider()["stake"] == 0


def test_a_cheat_that_accuses_itself_still_loses_half() -> None:
    court = open_court()
    before = court.hanse.held(PROVIDER.address)
    name = court.challenge(challenger=PROVIDER)
    court.decide(name, UP, UP, UP)
    court.open_answer(name)
    court.call(PROVIDER, "withdraw")
    # Its stake of 1,000 went in before; what it gets of it is at most the pool of 500.
    assert court.hanse.held(PROVIDER.address) - before <= 500
    assert court.hanse.chain.view(court.hanse.registry, "burned") == 500


def test_a_vote_of_another_round_or_challenge_cannot_be_replayed() -> None:
    court = open_court()
    first, second = court.challenge(), court.challenge(evidence="0x" + "e2" * 32)
    panels = court.draw(first), court.draw(second)
    both = [auditor for auditor in panels[0] if auditor in panels[1]]
    assert both, "the block hashes of this test seat one auditor on both panels"
    sealed = to_bytes(seal_vote(first, 1, both[0].address, UP, SALT))
    court.call(both[0], "seal_vote", to_bytes(second), sealed)
    court.hanse.chain.advance(PANELS.vote_time_s)
    with reverts("vote"):
        court.reveal(second, both[0], UP)


def test_each_missed_vote_is_fined_and_nobody_else_pays() -> None:
    """Three at once, as many as there are auditors: each takes a sixteenth of it."""
    court = open_court(auditors=3)
    names = [court.challenge(evidence=f"0x{n:064x}") for n in range(1, 4)]
    for name in names:
        court.decide(name, AWAY, AWAY, AWAY)
    court.hanse.chain.advance(PANELS.appeal_time_s)
    for name in names:
        court.call(STRANGER, "close", to_bytes(name))
    for auditor in AUDITORS[:3]:
        assert court.stake(auditor) == PANELS.lot_stake - 3 * (PANELS.lot_stake // 16)
    assert court.credit(CHALLENGER) == 3 * DEPOSIT
    court.assert_conserved()


def test_a_flood_of_challenges_cannot_choose_the_panel() -> None:
    """Cases of which the answer is known fill the seats of six honest auditors; then three join.

    The fees of such a flood go to the auditors, the bonds come back; were more taken, the next
    panel would be drawn of the newcomers alone, and condemn whom they like.
    """
    court = open_court(auditors=6)
    with contextlib.suppress(Reverted):
        for number in range(1, 11):
            court.draw(court.challenge(answer=NO, evidence=f"0x{number:064x}"))
    newcomers = AUDITORS[6:]
    for auditor in newcomers:
        court.call(auditor, "join", 1)
    court.hanse.chain.advance(1)
    panel = court.draw(court.challenge(evidence="0x" + "ee" * 32))
    assert set(panel) - set(newcomers)
    free = [auditor for auditor in AUDITORS if court.view("get_auditor", auditor.address)[2] < 32]
    assert free == AUDITORS


def test_as_many_challenges_are_open_as_there_are_auditors() -> None:
    court = open_court(auditors=3)
    names = [court.challenge(evidence=f"0x{n:064x}") for n in range(1, 4)]
    with reverts("busy"):
        court.challenge()
    for name in names:
        assert court.draw(name) == court.get_panel(name) != []
    court.hanse.chain.advance(PANELS.vote_time_s + PANELS.reveal_time_s)
    court.call(STRANGER, "tally", to_bytes(names[0]))
    with reverts("busy"):
        court.challenge()
    court.hanse.chain.advance(PANELS.appeal_time_s)
    court.call(STRANGER, "close", to_bytes(names[0]))
    assert court.view("open_challenges") == 2
    court.challenge(signed=court.receipt(finished_at=court.hanse.chain.now_s))


def test_a_receipt_pays_once_however_many_challenge_it() -> None:
    """The user's friends repeat its challenge: they get their own back, and nothing of the pool."""
    court = open_court()
    friend = key_of("friend")
    court.hanse.mint(friend.address, RICH, court.hanse.disputes)
    signed = court.receipt(fee=100)
    names = [court.challenge(signed=signed, challenger=key) for key in (CHALLENGER, friend)]
    for name in names:
        court.decide(name, UP, UP, UP)
    court.open_answer(names[0])
    assert court.credit(USER) == 100
    assert court.credit(CHALLENGER) == DEPOSIT + PANELS.bond
    closed = court.call(friend, "open_answer", to_bytes(names[1]), AWAY, to_bytes(SALT))
    assert closed.event("Closed")["compensation"] == 0
    assert court.credit(USER) == 100
    assert court.credit(friend) == DEPOSIT
    assert court.provider()["pool"] == 500 - 100 - PANELS.bond - 2 * FEES


def test_another_receipt_of_the_same_provider_is_paid_as_well() -> None:
    court = open_court()
    names = [court.challenge(signed=court.receipt(number, fee=50)) for number in (1, 2)]
    for name in names:
        court.decide(name, UP, UP, UP)
    court.hanse.chain.advance(PANELS.appeal_time_s)
    for name in names:
        court.call(CHALLENGER, "open_answer", to_bytes(name), AWAY, to_bytes(SALT))
    assert court.credit(USER) == 100
