"""Disputes over hostile assets, and what a party of a challenge could try."""

from collections.abc import Callable
from typing import Any

import pytest

from hanse.protocol.ledger.panels.sealing import Verdict, seal_vote
from hanse.protocol.signatures import to_bytes
from tests.contracts.conftest import attack_asset
from tests.contracts.local_evm import LocalEvm, deploy_hanse, key_of, reverts
from tests.contracts.panel_parts import (
    APPELLANT,
    AUDITORS,
    CHALLENGER,
    DEPOSIT,
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
    """Four at once, as many as one lot may have open: each takes a sixteenth of it."""
    court = open_court(auditors=3)
    names = [court.challenge(evidence=f"0x{n:064x}") for n in range(1, 5)]
    for name in names:
        court.decide(name, AWAY, AWAY, AWAY)
    court.hanse.chain.advance(PANELS.appeal_time_s)
    for name in names:
        court.call(STRANGER, "close", to_bytes(name))
    for auditor in AUDITORS[:3]:
        assert court.stake(auditor) == PANELS.lot_stake - 4 * (PANELS.lot_stake // 16)
    assert court.credit(CHALLENGER) == 4 * DEPOSIT
    court.assert_conserved()


def test_a_lot_sits_on_four_panels_at_most() -> None:
    """Each seat is backed by a whole fine; the fifth challenge finds nobody, and loses nothing."""
    court = open_court(auditors=3)
    names = [court.challenge(evidence=f"0x{n:064x}") for n in range(1, 6)]
    assert [len(court.draw(name)) for name in names] == [3, 3, 3, 3, 0]
