"""Disputes by panel: each rule with what it allows and what it refuses, its events, who is paid."""

from typing import Any

import msgspec
import pytest

from hanse.protocol.ledger.panels.sealing import Verdict, name_challenge, seal_answer, seal_vote
from hanse.protocol.signatures import to_bytes, to_hex
from tests.contracts.dispute_parts import make_receipt
from tests.contracts.local_evm import Key, key_of, reverts
from tests.contracts.panel_parts import (
    ABSENCE,
    APPEAL_DEPOSIT,
    APPEAL_FEES,
    APPELLANT,
    AUDITORS,
    CHALLENGER,
    DEPOSIT,
    EVIDENCE,
    FEES,
    MISTAKE,
    PANELS,
    PROVIDER,
    RECEIPT_KEY,
    RICH,
    SALT,
    URI,
    USER,
    Court,
    open_court,
    sign,
    to_arguments,
)

UP, NO, AWAY = Verdict.UPHELD, Verdict.REJECTED, Verdict.NONE
FEE = 7
HALF = 500
STRANGER = key_of("stranger")


@pytest.fixture
def court() -> Court:
    return open_court()


def spent(court: Court, key: Key) -> int:
    return RICH - court.hanse.held(key.address)


# ---------------------------------------------------------------- auditors


def test_an_auditor_joins_and_leaves_whole(court: Court) -> None:
    newcomer = key_of("newcomer")
    court.hanse.mint(newcomer.address, 1_000, court.hanse.disputes)
    joined = court.call(newcomer, "join", 3)
    assert joined.event("Joined") == {
        "auditor": newcomer.address,
        "amount": 480,
        "lots": 3,
        "stake": 480,
    }
    assert court.view("lot_count") == 12
    assert court.view("auditor_count") == 10
    left = court.call(newcomer, "leave", 3)
    assert left.event("Left") == {
        "auditor": newcomer.address,
        "amount": 480,
        "lots": 0,
        "stake": 0,
    }
    paid = court.call(newcomer, "withdraw")
    assert paid.output == (480,)
    assert paid.event("Withdrawn") == {"holder": newcomer.address, "amount": 480}
    assert court.hanse.held(newcomer.address) == 1_000
    assert court.view("get_auditor", newcomer.address) == (0, 0, 0, 0)
    court.assert_conserved()


def test_the_last_lot_takes_the_place_of_one_that_leaves(court: Court) -> None:
    court.call(AUDITORS[2], "leave", 1)
    assert court.view("lot_count") == 8
    word = court.view("lot_words", 2)
    assert word == int(AUDITORS[8].address, 16) << 96
    assert court.view("lot_words", 8) == 0
    court.call(AUDITORS[8], "leave", 1)
    assert court.view("lot_words", 2) == int(AUDITORS[7].address, 16) << 96


@pytest.mark.parametrize(("count", "of"), [(0, 1), (2, 1), (21, 1), (1, 0)])
def test_lots_that_are_not_there_cannot_be_given_back(count: int, of: int, court: Court) -> None:
    who = AUDITORS[0] if of else STRANGER
    with reverts("lots"):
        court.call(who, "leave", count)


def test_lots_are_bought_in_bounds_and_for_something(court: Court) -> None:
    for count in (21, 0):
        with reverts("lots"):
            court.call(AUDITORS[0], "join", count)
    with reverts("lots"):
        court.call(STRANGER, "join", 0)
    court.call(AUDITORS[0], "join", 20)
    assert court.stake(AUDITORS[0]) == 21 * PANELS.lot_stake


def test_a_retired_auditor_is_not_drawn_and_can_come_back(court: Court) -> None:
    with reverts("lots"):
        court.call(STRANGER, "retire")
    for auditor in AUDITORS[3:]:
        retired = court.call(auditor, "retire")
        assert retired.event("Retired") == {"auditor": auditor.address}
    with reverts("lots"):
        court.call(AUDITORS[3], "retire")
    name = court.challenge()
    assert court.draw(name) == AUDITORS[:3]
    court.call(AUDITORS[3], "join", 0)
    assert court.view("get_auditor", AUDITORS[3].address)[3] == court.hanse.chain.now_s


def test_nobody_leaves_while_a_draw_is_pending_or_from_a_seat(court: Court) -> None:
    name = court.challenge()
    for function in (("retire",), ("leave", 1)):
        with reverts("drawing"):
            court.call(AUDITORS[0], *function)
    panel = court.draw(name)
    with reverts("seated"):
        court.call(panel[0], "leave", 1)
    court.call(panel[0], "retire")
    free = next(auditor for auditor in AUDITORS if auditor not in panel)
    court.call(free, "leave", 1)


def test_nothing_credited_is_nothing_to_withdraw(court: Court) -> None:
    with reverts("balance"):
        court.call(STRANGER, "withdraw")


# ---------------------------------------------------------------- challenges


def test_a_challenge_takes_bond_and_fees_and_says_everything(court: Court) -> None:
    signed = court.receipt(commitment_root="0x" + "c0" * 32)
    sealed = seal_answer(CHALLENGER.address, AWAY, SALT)
    outcome = court.call(
        CHALLENGER, "challenge", *to_arguments(signed), to_bytes(EVIDENCE), URI, to_bytes(sealed)
    )
    digest = court.hanse.domain.digest(signed.receipt.struct_hash())
    name = name_challenge(to_hex(digest), CHALLENGER.address, EVIDENCE)
    assert to_hex(outcome.output[0]) == name
    assert outcome.event("Challenged") == {
        "challenge": to_bytes(name),
        "provider": PROVIDER.address,
        "challenger": CHALLENGER.address,
        "user": USER.address,
        "receipt_hash": digest,
        "evidence_hash": to_bytes(EVIDENCE),
        "uri": URI,
        "sealed_answer": to_bytes(sealed),
        "seed_block": 3,
    }
    assert spent(court, CHALLENGER) == DEPOSIT == 221
    assert court.view("pending_draws") == 1


def challenge_with(court: Court, **changes: Any) -> None:
    parts: dict[str, Any] = {
        "signed": to_arguments(court.receipt()),
        "evidence": to_bytes(EVIDENCE),
        "sealed": to_bytes(seal_answer(CHALLENGER.address, AWAY, SALT)),
        **changes,
    }
    arguments = (*parts["signed"], parts["evidence"], URI, parts["sealed"])
    court.call(CHALLENGER, "challenge", *arguments)


def test_a_challenge_needs_evidence_and_a_sealed_answer(court: Court) -> None:
    with reverts("evidence"):
        challenge_with(court, evidence=bytes(32))
    with reverts("answer"):
        challenge_with(court, sealed=bytes(32))
    challenge_with(court)
    with reverts("known"):
        challenge_with(court)
    challenge_with(court, evidence=b"\1" * 32)


def test_only_what_the_provider_signed_can_be_challenged(court: Court) -> None:
    made = court.receipt().receipt
    forged = key_of("attacker").sign(court.hanse.domain.digest(made.struct_hash()))
    r, vs, row = bytes.fromhex(forged[2:66]), 0, to_arguments(court.receipt())[0]
    for signature in ((r, vs), (bytes(32), 0), (r, 2**255 - 1)):
        with reverts("signature"):
            challenge_with(court, signed=(row, *signature))
    changed = (*row[:9], row[9] + 1, *row[10:])
    with reverts("signature"):
        challenge_with(court, signed=(changed, *to_arguments(court.receipt())[1:]))
    other = key_of("other provider")
    court.hanse.register(other, key_of("other receipt key"))
    with reverts("signature"):
        challenge_with(court, signed=to_arguments(court.receipt(provider=other.address)))


def test_a_receipt_can_be_challenged_until_its_window_is_over(court: Court) -> None:
    now_s = court.hanse.chain.now_s
    late = court.receipt(finished_at=now_s - PANELS.audit_window_s - 1)
    with reverts("window"):
        challenge_with(court, signed=to_arguments(late))
    court.challenge(signed=court.receipt(finished_at=now_s - PANELS.audit_window_s))
    court.challenge(signed=court.receipt(finished_at=2**256 - 1))


def test_somebody_must_answer_for_it(court: Court) -> None:
    court.hanse.registry_call(PROVIDER, "begin_unbonding")
    court.hanse.chain.advance(court.hanse.terms.unbonding_time_s)
    court.hanse.registry_call(PROVIDER, "finish_unbonding", PROVIDER.address)
    with reverts("stake"):
        challenge_with(court, signed=to_arguments(court.receipt(finished_at=2**40)))


def test_too_few_auditors_are_no_court() -> None:
    court = open_court(auditors=2)
    with reverts("auditors"):
        challenge_with(court)
    court.call(AUDITORS[2], "join", 1)
    challenge_with(court)


def test_a_fee_of_any_size_does_not_overflow(court: Court) -> None:
    """Its field is the provider's choice: a challenge of it must still be able to end."""
    name = court.challenge(signed=court.receipt(fee=2**256 - 1))
    court.decide(name, UP, UP, UP)
    closed = court.open_answer(name).event("Closed")
    assert (closed["slashed"], closed["compensation"]) == (HALF, HALF)
    assert court.credit(USER) == HALF


def test_the_provider_lays_its_evidence_beside(court: Court) -> None:
    name = to_bytes(court.challenge())
    for key in (PROVIDER, RECEIPT_KEY):
        said = court.call(key, "respond", name, b"\2" * 32, "https://mine.test")
        assert said.event("Responded") == {
            "challenge": name,
            "evidence_hash": b"\2" * 32,
            "uri": "https://mine.test",
        }
    with reverts("not permitted"):
        court.call(CHALLENGER, "respond", name, b"\2" * 32, "")
    with reverts("evidence"):
        court.call(PROVIDER, "respond", name, bytes(32), "")
    with reverts("stage"):
        court.call(PROVIDER, "respond", b"\3" * 32, b"\2" * 32, "")


# ---------------------------------------------------------------- the draw


def test_the_draw_waits_for_its_seed_and_happens_once(court: Court) -> None:
    name = court.challenge()
    court.hanse.chain.mine(2)
    with reverts("early"):
        court.call(STRANGER, "draw", to_bytes(name))
    court.hanse.chain.mine(1)
    drawn = court.call(STRANGER, "draw", to_bytes(name))
    now_s = court.hanse.chain.now_s
    event = drawn.event("PanelDrawn")
    assert event == {
        "challenge": to_bytes(name),
        "round": 1,
        "panel": court.view("get_panel", to_bytes(name), 1),
        "vote_until_s": now_s + 120,
        "reveal_until_s": now_s + 180,
    }
    assert len(set(event["panel"])) == 3
    assert court.view("pending_draws") == 0
    with reverts("stage"):
        court.call(STRANGER, "draw", to_bytes(name))


def test_the_panel_does_not_depend_on_when_or_by_whom_it_is_drawn() -> None:
    panels = set()
    for wait in (3, 4, 256):
        court = open_court()
        name = court.challenge()
        court.hanse.chain.mine(wait)
        court.call(key_of(f"drawer {wait}"), "draw", to_bytes(name))
        panels.add(court.view("get_panel", to_bytes(name), 1))
    assert len(panels) == 1


def test_who_joins_after_the_challenge_is_not_drawn_for_it(court: Court) -> None:
    drawn = []
    for crowd in (False, True):
        court = open_court()
        name = court.challenge()
        if crowd:
            court.call(AUDITORS[0], "join", 20)
            for number in range(5):
                late = key_of(f"late {number}")
                court.hanse.mint(late.address, 10_000, court.hanse.disputes)
                court.call(late, "join", 20)
        drawn.append(court.draw(name))
    assert drawn[0] == drawn[1]


def test_who_joins_in_the_challenges_own_second_is_not_drawn(court: Court) -> None:
    for auditor in AUDITORS[3:]:
        court.call(auditor, "retire")
        court.call(auditor, "join", 0)
    assert court.draw(court.challenge()) == AUDITORS[:3]


def test_a_seed_that_nobody_used_is_replaced(court: Court) -> None:
    name = court.challenge()
    court.hanse.chain.mine(2 + 257)
    missed = court.call(STRANGER, "draw", to_bytes(name))
    assert missed.output == (False,)
    assert missed.event("SeedMissed") == {
        "challenge": to_bytes(name),
        "round": 1,
        "seed_block": 262,
    }
    with reverts("early"):
        court.call(STRANGER, "draw", to_bytes(name))
    assert len(court.draw(name)) == 3


def test_no_party_sits_on_its_own_panel(court: Court) -> None:
    """With seven of nine auditors party or retired, there is no panel, and no loss."""
    for auditor in AUDITORS[3:]:
        court.call(auditor, "retire")
    signed = court.receipt(user=AUDITORS[0].address)
    name = court.challenge(signed=signed, challenger=AUDITORS[1])
    before = court.credit(AUDITORS[1])
    assert court.draw(name) == []
    with reverts("late"):
        court.appeal(name)
    closed = court.call(STRANGER, "close", to_bytes(name)).event("Closed")
    assert closed["verdict"] == 0
    assert not closed["opened"]
    assert court.credit(AUDITORS[1]) == before + DEPOSIT
    court.assert_conserved()


@pytest.mark.parametrize("role", ["user", "challenger", "provider"])
def test_a_party_that_is_an_auditor_is_passed_over(court: Court, role: str) -> None:
    """Four are in, one of them a party: the panel is the three others."""
    for auditor in AUDITORS[4:]:
        court.call(auditor, "retire")
    party, made = AUDITORS[3], make_receipt(USER, PROVIDER, USER, 1, 70)
    if role == "provider":
        key = key_of("party's receipt key")
        court.hanse.register(party, key)
        signed = sign(court.hanse, msgspec.structs.replace(made, provider=party.address), key)
    else:
        user = party if role == "user" else USER
        signed = sign(court.hanse, msgspec.structs.replace(made, user=user.address))
    challenger = party if role == "challenger" else CHALLENGER
    name = court.challenge(signed=signed, challenger=challenger)
    assert court.draw(name) == AUDITORS[:3]


def test_an_appellant_that_is_an_auditor_is_passed_over(court: Court) -> None:
    name = court.challenge()
    first = court.decide(name, NO, NO, NO)
    others = [auditor for auditor in AUDITORS if auditor not in first]
    court.appeal(name, others[0])
    assert court.draw(name) == others[1:]


def test_a_fined_auditor_is_drawn_again_when_it_has_filled_up(court: Court) -> None:
    for auditor in AUDITORS[4:]:
        court.call(auditor, "retire")
    name = court.challenge()
    panel = court.decide(name, NO, NO, AWAY)
    court.open_answer(name)
    whole = [auditor for auditor in AUDITORS[:4] if auditor != panel[2]]
    again = court.challenge(evidence="0x" + "e2" * 32)
    # Filling up now must not put it on a panel whose seed could be known by then.
    court.call(panel[2], "join", 0)
    assert court.draw(again) == whole
    court.hanse.chain.advance(1)
    seen = {
        auditor
        for n in range(3, 6)
        for auditor in court.draw(court.challenge(evidence=f"0x{n:064x}"))
    }
    assert panel[2] in seen


def test_lots_weigh(court: Court) -> None:
    """20 of 28 lots: in all but few panels of three."""
    court.call(AUDITORS[0], "join", 19)
    court.hanse.chain.advance(1)
    names = [court.challenge(evidence="0x" + f"{n:064x}") for n in range(1, 10)]
    seated = sum(AUDITORS[0] in court.draw(name) for name in names)
    assert seated >= 8


# ---------------------------------------------------------------- votes


def test_a_vote_is_sealed_once_in_time_by_who_has_a_seat(court: Court) -> None:
    name = court.challenge()
    with reverts("stage"):
        court.seal(name, AUDITORS[0], UP)
    panel = court.draw(name)
    outsider = next(auditor for auditor in AUDITORS if auditor not in panel)
    with reverts("seat"):
        court.seal(name, outsider, UP)
    with reverts("vote"):
        court.call(panel[0], "seal_vote", to_bytes(name), bytes(32))
    sealed = to_bytes(seal_vote(name, 1, panel[0].address, UP, SALT))
    assert court.seal(name, panel[0], UP).event("VoteSealed") == {
        "challenge": to_bytes(name),
        "auditor": panel[0].address,
        "round": 1,
        "sealed_vote": sealed,
    }
    with reverts("seat"):
        court.seal(name, panel[0], NO)
    court.hanse.chain.advance(PANELS.vote_time_s - 1)
    court.seal(name, panel[1], UP)
    court.hanse.chain.advance(1)
    with reverts("late"):
        court.seal(name, panel[2], UP)


def test_a_vote_is_revealed_when_nobody_can_vote_any_more(court: Court) -> None:
    name = court.challenge()
    panel = court.draw(name)
    court.seal(name, panel[0], UP)
    with reverts("early"):
        court.reveal(name, panel[0], UP)
    court.hanse.chain.advance(PANELS.vote_time_s)
    with reverts("seat"):
        court.reveal(name, panel[1], UP)
    with reverts("vote"):
        court.reveal(name, panel[0], NO)
    with reverts("verdict"):
        court.reveal(name, panel[0], AWAY)
    with reverts("vote"):
        court.call(panel[0], "reveal_vote", to_bytes(name), UP, b"\7" * 32)
    court.hanse.chain.advance(PANELS.reveal_time_s - 1)
    assert court.reveal(name, panel[0], UP).event("VoteRevealed") == {
        "challenge": to_bytes(name),
        "auditor": panel[0].address,
        "round": 1,
        "verdict": 1,
    }
    with reverts("seat"):
        court.reveal(name, panel[0], UP)
    court.hanse.chain.advance(1)
    with reverts("late"):
        court.reveal(name, panel[0], UP)


def test_when_all_have_sealed_nobody_waits(court: Court) -> None:
    name = court.challenge()
    panel = court.draw(name)
    for auditor in panel:
        court.seal(name, auditor, NO)
    with reverts("early"):
        court.call(STRANGER, "tally", to_bytes(name))
    for auditor in panel:
        court.reveal(name, auditor, NO)
    decided = court.call(STRANGER, "tally", to_bytes(name))
    assert decided.output == (2,)
    assert decided.event("Decided") == {
        "challenge": to_bytes(name),
        "round": 1,
        "upheld": 0,
        "rejected": 3,
        "verdict": 2,
        "until_s": court.hanse.chain.now_s + PANELS.appeal_time_s,
    }
    with reverts("stage"):
        court.call(STRANGER, "tally", to_bytes(name))


def test_another_auditors_sealed_vote_is_worth_nothing(court: Court) -> None:
    name = court.challenge()
    panel = court.draw(name)
    copied = to_bytes(seal_vote(name, 1, panel[0].address, UP, SALT))
    for auditor in panel:
        court.call(auditor, "seal_vote", to_bytes(name), copied)
    court.reveal(name, panel[0], UP)
    with reverts("vote"):
        court.reveal(name, panel[1], UP)


@pytest.mark.parametrize(
    ("votes", "verdict"),
    [
        ((UP, UP, UP), UP),
        ((UP, UP, NO), UP),
        ((UP, UP, AWAY), UP),
        ((NO, NO, UP), NO),
        ((UP, NO, AWAY), AWAY),
        ((UP, AWAY, AWAY), AWAY),
        ((AWAY, AWAY, AWAY), AWAY),
    ],
)
def test_a_verdict_takes_more_than_half_of_the_seats(
    court: Court, votes: tuple[Verdict, ...], verdict: Verdict
) -> None:
    name = court.challenge()
    court.decide(name, *votes)
    assert court.view("get_round", to_bytes(name), 1)[9] == verdict


# ---------------------------------------------------------------- who gets what


def test_upheld_the_provider_is_condemned_and_pays(court: Court) -> None:
    name = court.challenge()
    panel = court.decide(name, UP, UP, NO)
    with reverts("early"):
        court.call(CHALLENGER, "open_answer", to_bytes(name), 0, to_bytes(SALT))
    outcome = court.open_answer(name)
    due = PANELS.bond + 2 * FEE + FEE
    assert outcome.event("Closed") == {
        "challenge": to_bytes(name),
        "provider": PROVIDER.address,
        "verdict": 1,
        "answer": 0,
        "opened": True,
        "slashed": due,
        "compensation": FEE,
    }
    assert outcome.event("Condemned")["burned"] == HALF
    assert outcome.event("Slashed") == {
        "provider": PROVIDER.address,
        "amount": due,
        "pool": HALF - due,
    }
    assert court.credit(CHALLENGER) == DEPOSIT + PANELS.bond
    assert court.credit(USER) == FEE
    assert [court.credit(auditor) for auditor in panel] == [FEE, FEE, 0]
    assert [court.stake(auditor) for auditor in panel] == [PANELS.lot_stake] * 3
    assert court.provider()["stake"] == 0
    court.assert_conserved()
    assert court.call(panel[2], "leave", 1).event("Left")["amount"] == PANELS.lot_stake
    with reverts("condemned"):
        challenge_with(court)
    with reverts("stage"):
        court.call(STRANGER, "close", to_bytes(name))


def test_rejected_the_challenger_pays_the_accused(court: Court) -> None:
    name = court.challenge()
    panel = court.decide(name, NO, UP, NO)
    outcome = court.open_answer(name)
    assert outcome.event("Closed")["verdict"] == 2
    assert outcome.event("Burned") == {"challenge": to_bytes(name), "amount": 100}
    assert court.credit(PROVIDER) == 100
    assert court.credit(CHALLENGER) == FEE  # of the seat that nobody earned
    assert [court.credit(auditor) for auditor in panel] == [FEE, 0, FEE]
    assert court.provider()["stake"] == 1_000
    assert court.view("burned") == 100
    court.assert_conserved()


def test_who_does_not_reveal_is_fined(court: Court) -> None:
    name = court.challenge()
    panel = court.decide(name, UP, UP, AWAY)
    fined = court.open_answer(name).event("Fined")
    assert fined == {
        "auditor": panel[2].address,
        "challenge": to_bytes(name),
        "amount": ABSENCE,
        "stake": PANELS.lot_stake - ABSENCE,
    }
    assert court.view("burned") == ABSENCE
    # It is drawn again only when it has filled up.
    court.call(panel[2], "join", 0)
    assert court.stake(panel[2]) == PANELS.lot_stake
    court.assert_conserved()


def test_without_a_verdict_nobody_loses_but_who_stayed_away(court: Court) -> None:
    name = court.challenge()
    panel = court.decide(name, UP, NO, AWAY)
    with reverts("early"):
        court.call(STRANGER, "close", to_bytes(name))
    court.hanse.chain.advance(PANELS.appeal_time_s)
    court.call(STRANGER, "close", to_bytes(name))
    assert court.credit(CHALLENGER) == DEPOSIT - 2 * FEE
    assert [court.credit(auditor) for auditor in panel] == [FEE, FEE, 0]
    assert court.stake(panel[2]) == PANELS.lot_stake - ABSENCE
    assert court.provider()["stake"] == 1_000
    court.assert_conserved()


def test_a_challenger_that_keeps_its_answer_gets_nothing(court: Court) -> None:
    """Else it could sell the accused the choice of calling the challenge a planted one."""
    name = court.challenge(answer=UP)
    court.decide(name, UP, UP, UP)
    court.hanse.chain.advance(PANELS.appeal_time_s + PANELS.answer_time_s - 1)
    with reverts("early"):
        court.call(STRANGER, "close", to_bytes(name))
    court.hanse.chain.advance(1)
    closed = court.call(STRANGER, "close", to_bytes(name)).event("Closed")
    assert closed["answer"] == 0
    assert not closed["opened"]
    assert court.provider()["stake"] == 0
    assert court.credit(CHALLENGER) == 0
    assert court.credit(USER) == FEE
    court.assert_conserved()


def test_only_the_sealed_answer_opens(court: Court) -> None:
    name = court.challenge(answer=UP)
    court.decide(name, UP, UP, UP)
    court.hanse.chain.advance(PANELS.appeal_time_s)
    for answer, salt in ((0, SALT), (2, SALT), (3, SALT), (1, "0x" + "00" * 32)):
        with reverts("answer"):
            court.call(CHALLENGER, "open_answer", to_bytes(name), answer, to_bytes(salt))
    court.call(STRANGER, "open_answer", to_bytes(name), 1, to_bytes(SALT))
    with reverts("stage"):
        court.call(CHALLENGER, "open_answer", to_bytes(name), 1, to_bytes(SALT))


# ---------------------------------------------------------------- known answers


@pytest.mark.parametrize("answer", [UP, NO])
def test_a_known_answer_fines_who_did_not_look(court: Court, answer: Verdict) -> None:
    wrong = NO if answer == UP else UP
    name = court.challenge(answer=answer)
    panel = court.decide(name, answer, wrong, answer)
    outcome = court.open_answer(name, answer)
    assert outcome.event("Closed")["slashed"] == 0
    assert outcome.event("Fined") == {
        "auditor": panel[1].address,
        "challenge": to_bytes(name),
        "amount": MISTAKE,
        "stake": PANELS.lot_stake - MISTAKE,
    }
    assert court.provider()["stake"] == 1_000
    assert court.credit(CHALLENGER) == DEPOSIT - 2 * FEE + MISTAKE // 2
    assert court.view("burned") == MISTAKE // 2
    assert [court.credit(auditor) for auditor in panel] == [FEE, 0, FEE]
    court.assert_conserved()


@pytest.mark.parametrize("answer", [UP, NO])
def test_a_planter_whom_the_panel_contradicts_loses_and_fines_nobody(
    court: Court, answer: Verdict
) -> None:
    other = NO if answer == UP else UP
    name = court.challenge(answer=answer)
    panel = court.decide(name, other, other, answer)
    court.open_answer(name, answer)
    assert [court.stake(auditor) for auditor in panel] == [PANELS.lot_stake] * 3
    assert court.credit(CHALLENGER) == FEE
    assert court.credit(PROVIDER) == 100
    assert court.provider()["stake"] == 1_000
    court.assert_conserved()


def test_lazy_panels_are_caught_by_the_appeal(court: Court) -> None:
    """All three wave the planted cheat through; five others look."""
    name = court.challenge(answer=UP)
    lazy = court.decide(name, NO, NO, NO)
    court.appeal(name, CHALLENGER)
    court.decide(name, UP, UP, UP, UP, UP)
    court.open_answer(name, UP)
    assert [court.stake(auditor) for auditor in lazy] == [PANELS.lot_stake - MISTAKE] * 3
    # 3 fines of 40: half is burned; the rest pays the appeal's fees back, then the planter.
    put_in = DEPOSIT + APPEAL_DEPOSIT
    assert court.credit(CHALLENGER) == put_in - APPEAL_FEES + 3 * MISTAKE // 2
    court.assert_conserved()


# ---------------------------------------------------------------- the appeal


def test_an_appeal_takes_more_and_is_judged_by_others(court: Court) -> None:
    name = court.challenge()
    first = court.decide(name, NO, NO, NO)
    outcome = court.call(APPELLANT, "appeal", to_bytes(name))
    assert outcome.event("Appealed") == {
        "challenge": to_bytes(name),
        "appellant": APPELLANT.address,
        "seed_block": court.hanse.chain.block + 2,
    }
    assert spent(court, APPELLANT) == APPEAL_DEPOSIT == 435
    second = court.draw(name)
    assert len(second) == 5
    assert not set(first) & set(second)
    with reverts("stage"):
        court.appeal(name)


def test_an_appeal_that_flips_is_paid_back_by_the_loser(court: Court) -> None:
    name = court.challenge()
    court.decide(name, NO, NO, UP)
    court.appeal(name)
    court.decide(name, UP, UP, UP, NO, AWAY)
    court.open_answer(name)
    # Paid: the first panel's one vote for the verdict, the second's three.
    assert court.credit(APPELLANT) == APPEAL_DEPOSIT
    assert court.credit(CHALLENGER) == DEPOSIT + PANELS.bond
    assert court.credit(USER) == FEE
    due = PANELS.bond + FEE + 3 * FEE + FEE
    assert court.provider()["pool"] == HALF - due
    court.assert_conserved()


def test_an_acquittal_on_appeal_is_paid_by_the_challenger(court: Court) -> None:
    name = court.challenge()
    court.decide(name, UP, UP, UP)
    court.appeal(name, PROVIDER)
    court.decide(name, NO, NO, NO, NO, NO)
    court.open_answer(name)
    assert court.provider()["stake"] == 1_000
    assert court.credit(PROVIDER) == APPEAL_DEPOSIT - APPEAL_FEES + 100
    assert court.credit(CHALLENGER) == FEES
    court.assert_conserved()


def test_an_appeal_that_changes_nothing_costs_its_bond(court: Court) -> None:
    name = court.challenge()
    court.decide(name, NO, NO, NO)
    court.appeal(name)
    court.decide(name, NO, NO, NO, UP, UP)
    court.open_answer(name)
    assert court.credit(APPELLANT) == 2 * FEE
    assert court.credit(PROVIDER) == 100 + 200
    assert court.view("burned") == 100 + 200
    court.assert_conserved()


def test_an_undecided_appeal_leaves_the_first_verdict(court: Court) -> None:
    name = court.challenge()
    court.decide(name, NO, NO, NO)
    court.appeal(name)
    court.decide(name, UP, UP, NO, NO, AWAY)
    closed = court.open_answer(name).event("Closed")
    assert closed["verdict"] == NO
    assert court.credit(APPELLANT) == APPEAL_DEPOSIT - 2 * FEE
    court.assert_conserved()


def test_an_appeal_is_once_and_in_time(court: Court) -> None:
    name = court.challenge()
    court.decide(name, NO, NO, NO)
    court.hanse.chain.advance(PANELS.appeal_time_s)
    with reverts("late"):
        court.appeal(name)
    other = court.challenge(evidence="0x" + "e2" * 32)
    court.decide(other, NO, NO, NO)
    court.appeal(other)
    court.decide(other, UP, UP, UP, UP, UP)
    with reverts("appealed"):
        court.appeal(other)


def test_an_appeal_needs_auditors_for_another_panel() -> None:
    court = open_court(auditors=7)
    name = court.challenge()
    court.decide(name, NO, NO, NO)
    with reverts("auditors"):
        court.appeal(name)
    court.call(AUDITORS[7], "join", 1)
    court.appeal(name)


# ---------------------------------------------------------------- beside the other contracts


def test_a_stake_that_left_meanwhile_pays_nothing_and_the_verdict_stands(court: Court) -> None:
    court.hanse.registry_call(PROVIDER, "begin_unbonding")
    name = court.challenge()
    court.decide(name, UP, UP, UP)
    court.hanse.chain.advance(court.hanse.terms.unbonding_time_s)
    court.hanse.registry_call(PROVIDER, "finish_unbonding", PROVIDER.address)
    closed = court.open_answer(name).event("Closed")
    assert (closed["verdict"], closed["slashed"]) == (1, 0)
    assert court.credit(CHALLENGER) == DEPOSIT - FEES
    court.assert_conserved()


def test_two_challengers_of_one_provider_share_its_pool(court: Court) -> None:
    first, second = court.challenge(), court.challenge(signed=court.receipt(2))
    court.decide(first, UP, UP, UP)
    court.decide(second, UP, UP, UP)
    due = PANELS.bond + FEES + FEE
    assert court.open_answer(first).event("Closed")["slashed"] == due
    assert court.open_answer(second).event("Closed")["slashed"] == due
    assert court.provider()["pool"] == HALF - 2 * due
    court.assert_conserved()


def test_nobody_but_escrow_and_disputes_slashes(court: Court) -> None:
    for caller in (STRANGER, PROVIDER, CHALLENGER):
        with reverts("not permitted"):
            court.hanse.registry_call(caller, "slash", PROVIDER.address, 1)


def test_registry_says_what_answers(court: Court) -> None:
    view, registry = court.hanse.chain.view, court.hanse.registry
    assert view(registry, "at_stake", PROVIDER.address) == 1_000
    assert not view(registry, "is_condemned", PROVIDER.address)
    name = court.challenge()
    court.decide(name, UP, UP, UP)
    court.open_answer(name)
    assert view(registry, "is_condemned", PROVIDER.address)
    assert view(registry, "at_stake", PROVIDER.address) == HALF - PANELS.bond - FEES - FEE
    court.hanse.chain.advance(court.hanse.terms.dispute_window_s)
    assert view(registry, "at_stake", PROVIDER.address) == 0
