"""Votes: sealed, revealed, counted.

Source: `Disputes.vy`; docs/decisions/0032-disputes-by-panel.md, section "Votes".
"""

from dataclasses import replace

from hanse.protocol.ledger.panels.parts import (
    Now,
    get_round,
    get_rules,
    put,
    require_stage,
    with_panels,
)
from hanse.protocol.ledger.panels.sealing import Verdict, seal_vote
from hanse.protocol.ledger.panels.state import (
    FIRST_ROUND,
    NO_BALLOT,
    Ballot,
    BallotStatus,
    Stage,
)
from hanse.protocol.ledger.refusals import refuse
from hanse.protocol.ledger.state import Emitted, Ledger, Step
from hanse.protocol.signatures import ZERO_HASH, Address, Hash32


def apply_seal_vote(
    ledger: Ledger, auditor: Address, name: Hash32, sealed_vote: Hash32, now: Now
) -> Step:
    """Fix a vote without showing it. Refuses "stage", "late", "seat", "vote"."""
    panels = ledger.panels
    found = require_stage(panels, name, Stage.VOTING)
    current, seat = get_round(panels, name, found.round), (name, found.round, auditor)
    if now.time_s >= current.vote_until_s:
        raise refuse("late", f"votes were sealed until {current.vote_until_s}, it is {now.time_s}")
    if panels.ballots.get(seat, NO_BALLOT).status != BallotStatus.SEATED:
        raise refuse("seat", f"{auditor} has no seat here, or has sealed its vote")
    if sealed_vote == ZERO_HASH:
        raise refuse("vote", "the sealed vote is zero")
    after = with_panels(
        ledger,
        ballots=put(panels.ballots, seat, Ballot(BallotStatus.SEALED, sealed_vote)),
        rounds=put(panels.rounds, (name, found.round), replace(current, sealed=current.sealed + 1)),
    )
    fields = {
        "challenge": name,
        "auditor": auditor,
        "round": found.round,
        "sealed_vote": sealed_vote,
    }
    return Step(after, (Emitted("VoteSealed", fields),))


def apply_reveal_vote(
    ledger: Ledger, auditor: Address, name: Hash32, verdict: int, salt: Hash32, now: Now
) -> Step:
    """Show a sealed vote. Refuses "stage", "early", "late", "seat", "verdict", "vote"."""
    panels = ledger.panels
    found = require_stage(panels, name, Stage.VOTING)
    current, seat = get_round(panels, name, found.round), (name, found.round, auditor)
    all_sealed = current.sealed == get_rules(ledger).get_seats(found.round)
    if now.time_s < current.vote_until_s and not all_sealed:
        raise refuse("early", f"votes are sealed until {current.vote_until_s}, it is {now.time_s}")
    if now.time_s >= current.reveal_until_s:
        raise refuse(
            "late", f"votes were revealed until {current.reveal_until_s}, it is {now.time_s}"
        )
    ballot = panels.ballots.get(seat, NO_BALLOT)
    if ballot.status != BallotStatus.SEALED:
        raise refuse("seat", f"{auditor} has no sealed vote here")
    if verdict not in (Verdict.UPHELD, Verdict.REJECTED):
        raise refuse("verdict", f"verdict {verdict} is neither 1, upheld, nor 2, rejected")
    if seal_vote(name, found.round, auditor, Verdict(verdict), salt) != ballot.sealed_vote:
        raise refuse("vote", f"verdict {verdict} and this salt are not what {auditor} sealed")
    counted = replace(
        current,
        revealed=current.revealed + 1,
        upheld=current.upheld + (verdict == Verdict.UPHELD),
    )
    after = with_panels(
        ledger,
        ballots=put(panels.ballots, seat, replace(ballot, status=BallotStatus(verdict))),
        rounds=put(panels.rounds, (name, found.round), counted),
    )
    fields = {"challenge": name, "auditor": auditor, "round": found.round, "verdict": verdict}
    return Step(after, (Emitted("VoteRevealed", fields),))


def apply_tally(ledger: Ledger, name: Hash32, now: Now) -> Step:
    """Count the votes: a verdict takes more than half of the seats. Refuses "stage", "early"."""
    panels, rules = ledger.panels, get_rules(ledger)
    found = require_stage(panels, name, Stage.VOTING)
    current, seats = get_round(panels, name, found.round), rules.get_seats(found.round)
    if now.time_s < current.reveal_until_s and current.revealed < seats:
        raise refuse(
            "early", f"{current.revealed} of {seats} votes are revealed, and there is time until"
            f" {current.reveal_until_s}; it is {now.time_s}"
        )  # fmt: skip
    rejected, verdict = current.revealed - current.upheld, Verdict.NONE
    if 2 * current.upheld > seats:
        verdict = Verdict.UPHELD
    elif 2 * rejected > seats:
        verdict = Verdict.REJECTED
    until_s = now.time_s + (rules.appeal_time_s if found.round == FIRST_ROUND else 0)
    after = with_panels(
        ledger,
        rounds=put(panels.rounds, (name, found.round), replace(current, verdict=verdict)),
        challenges=put(
            panels.challenges, name, replace(found, stage=Stage.DECIDED, until_s=until_s)
        ),
    )
    fields = {
        "challenge": name,
        "round": found.round,
        "upheld": current.upheld,
        "rejected": rejected,
        "verdict": verdict,
        "until_s": until_s,
    }
    return Step(after, (Emitted("Decided", fields),))
